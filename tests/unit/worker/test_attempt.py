from shepherd.broker.memory_server import MemoryDelivery, _Stored
from shepherd.broker.port import Message
from shepherd.worker.attempt import Attempt, Cause, Hands


def attempt(token: str = "t") -> Attempt:
    message = Message(routing_key="q", body=b"", message_id=token)
    return Attempt(MemoryDelivery(stored=_Stored(number=1, message=message), queue="q"))


def test_an_attempt_is_ended_once_and_by_the_first_cause() -> None:
    killed: list[str] = []
    one = attempt()
    assert one.begin(lambda: killed.append("killed"))

    one.end(Cause.WITHDRAWN)
    one.end(Cause.GIVEN_UP)

    assert killed == ["killed"]
    assert one.over() is Cause.WITHDRAWN


def test_what_has_ended_by_itself_does_not_hit_its_childs_next_attempt() -> None:
    killed: list[str] = []
    one = attempt()
    one.begin(lambda: killed.append("killed"))
    assert one.over() is None

    one.end(Cause.RUN_TIMEOUT)

    assert killed == []


def test_what_was_ended_before_it_began_is_not_begun() -> None:
    one = attempt()

    one.end(Cause.WITHDRAWN)

    assert not one.begin(lambda: None)


def test_a_second_delivery_of_what_is_in_hand_is_told_from_the_first() -> None:
    hands = Hands()
    first, second = attempt(), attempt()

    assert hands.take(first)
    assert not hands.take(second)
    hands.let_go(second)

    assert hands.get("t") is first
    assert hands.tokens == ("t",)


def test_an_attempt_stays_in_hand_until_its_kept_reply_is_confirmed() -> None:
    hands = Hands()
    one = attempt()
    hands.take(one)

    hands.keep_reply("t")
    hands.let_go(one)
    held = hands.tokens
    hands.drop("t")

    assert held == ("t",)
    assert hands.tokens == ()


def test_what_names_no_attempt_is_never_twice_in_hand() -> None:
    hands = Hands()

    assert hands.take(attempt(""))
    assert hands.take(attempt(""))
    assert hands.tokens == ()
