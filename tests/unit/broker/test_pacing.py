from itertools import islice

from shepherd.broker.pacing import backoff, chunks
from shepherd.broker.port import Message


def sizes(messages: list[Message]) -> list[int]:
    return [len(chunk) for chunk in chunks(messages)]


def test_pauses_double_up_to_the_limit() -> None:
    assert list(islice(backoff(0.2, 1.0), 5)) == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_many_messages_are_written_in_parts_and_in_order() -> None:
    messages = [Message(routing_key=str(number), body=b"") for number in range(600)]

    parts = list(chunks(messages))

    assert [len(part) for part in parts] == [256, 256, 88]
    assert [message for part in parts for message in part] == messages


def test_large_messages_do_not_wait_for_others() -> None:
    assert sizes([Message(routing_key="q", body=bytes(2**20 + 1)) for _ in range(3)]) == [1, 1, 1]


def test_exchanges_do_not_share_a_part() -> None:
    messages = [Message(routing_key="q", body=b"", exchange=exchange) for exchange in ("", "", "control", "")]

    assert sizes(messages) == [2, 1, 1]


def test_messages_with_one_id_do_not_share_a_part() -> None:
    messages = [Message(routing_key="q", body=b"", message_id=one) for one in ("a", "b", "a", "", "")]

    assert sizes(messages) == [2, 3]


def test_nothing_makes_no_part() -> None:
    assert sizes([]) == []
