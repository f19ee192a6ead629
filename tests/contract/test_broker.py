"""What every broker promises, on the fake and on RabbitMQ."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterator

import aiormq
import pytest

from shepherd.broker import connect
from shepherd.broker.port import Broker, Delivery, ExchangeSpec, Message, Presence, QueueSpec, Subscription
from shepherd.broker.topology import CONTROL_EXCHANGE, EXCHANGES, STANDING_QUEUES, task_queue_spec
from shepherd.errors import BrokerUnavailableError, ConfigurationError, ProtocolError, QueueMissingError
from tests.support.given_brokers import ALL_BROKERS, BROKERS, GIVEN, BrokerUnderTest
from tests.support.waiting import wait_until

#: Long enough for a busy machine; nothing waits for it when all is well.
PATIENCE_S = 20.0
#: Long enough that what must not come would have come.
SOON_S = 0.3

#: Of queues and exchanges, since these were last removed.
_names: list[str] = []


@pytest.fixture(params=["memory", *ALL_BROKERS])
def url(request: pytest.FixtureRequest, shared_brokers: Callable[[str], BrokerUnderTest]) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory:{uuid.uuid4()}"
    elif request.param in BROKERS:
        yield shared_brokers(request.param).url
    else:
        yield GIVEN[request.param].url
        asyncio.run(remove_all(GIVEN[request.param].url))


@pytest.fixture
def client(url: str) -> Iterator[Callable[[], Broker]]:
    opened: list[Broker] = []

    def new() -> Broker:
        broker = connect(url, name=f"client {len(opened)}")
        opened.append(broker)
        assert broker.wait_connected(timeout_s=PATIENCE_S)
        return broker

    yield new
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(client: Callable[[], Broker]) -> Broker:
    return client()


@pytest.fixture
def queue(broker: Broker) -> str:
    return declared(broker, new_name())


def new_name() -> str:
    _names.append(f"task_{uuid.uuid4().hex}")
    return _names[-1]


async def remove_all(url: str) -> None:
    """Leave nothing in a virtual host that isn't ours alone."""
    async with await aiormq.connect(url) as connection:
        channel = await connection.channel()
        while _names:
            name = _names.pop()
            for queue in (name, task_queue_spec(name).name):
                await channel.queue_delete(queue)
            await channel.exchange_delete(name)


def declared(broker: Broker, name: str) -> str:
    broker.declare(exchanges=EXCHANGES, queues=[task_queue_spec(name)])
    return task_queue_spec(name).name


def send(broker: Broker, queue: str, *bodies: str) -> None:
    outcomes = broker.publish([Message(routing_key=queue, body=body.encode(), message_id=body) for body in bodies])
    assert outcomes == [None] * len(bodies)


def take(subscription: Subscription, number: int) -> list[Delivery]:
    """Return as many deliveries as were asked for, however they arrive."""
    taken: list[Delivery] = []

    def has_all() -> bool:
        taken.extend(subscription.take(at_most=number - len(taken), wait_s=SOON_S))
        return len(taken) == number

    wait_until(has_all, timeout_s=PATIENCE_S, what=f"{number} deliveries")
    return taken


def bodies(deliveries: list[Delivery]) -> list[str]:
    return [delivery.body.decode() for delivery in deliveries]


def test_what_is_published_arrives_as_it_was_sent(broker: Broker, queue: str) -> None:
    message = Message(routing_key=queue, body=b'{"a": 1}', message_id="token-1", type="task")

    outcome = broker.publish([message])

    [delivery] = take(broker.subscribe(queue, prefetch=1), 1)
    assert outcome == [None]
    assert delivery.body == b'{"a": 1}'
    assert delivery.message_id == "token-1"
    assert delivery.queue == queue
    assert not delivery.is_redelivered


def test_publishing_nothing_answers_with_nothing(broker: Broker) -> None:
    assert broker.publish([]) == []


def test_a_body_of_several_frames_arrives_whole(broker: Broker, queue: str) -> None:
    body = bytes(range(256)) * 4096

    broker.publish([Message(routing_key=queue, body=body), Message(routing_key=queue, body=b"")])

    deliveries = take(broker.subscribe(queue, prefetch=2), 2)
    assert [delivery.body for delivery in deliveries] == [body, b""]


def test_a_mandatory_message_for_no_queue_is_reported_and_its_neighbours_are_not(broker: Broker, queue: str) -> None:
    messages = [
        Message(routing_key=queue, body=b"1"),
        Message(routing_key=new_name(), body=b"2"),
        Message(routing_key=new_name(), body=b"3", is_mandatory=False),
        Message(routing_key=queue, body=b"4"),
    ]

    outcomes = broker.publish(messages)

    assert [type(outcome) for outcome in outcomes] == [type(None), QueueMissingError, type(None), type(None)]
    assert bodies(take(broker.subscribe(queue, prefetch=9), 2)) == ["1", "4"]


def test_who_publishes_is_called_once_when_all_is_on_its_way(broker: Broker, queue: str) -> None:
    sent: list[str] = []
    message, lost = Message(routing_key=queue, body=b"1"), Message(routing_key=new_name(), body=b"2")

    broker.publish([], on_sent=lambda: sent.append("nothing"))
    broker.publish([message, message], on_sent=lambda: sent.append("two of one exchange"))
    broker.publish([message, lost], on_sent=lambda: sent.append("one that no queue took"))
    broker.publish(
        [message, Message(exchange=CONTROL_EXCHANGE, routing_key="x", body=b"3", is_mandatory=False)],
        on_sent=lambda: sent.append("two exchanges"),
    )
    broker.close()
    broker.publish([message], on_sent=lambda: sent.append("over a closed connection"))

    assert sent == ["two of one exchange", "one that no queue took", "two exchanges"]


def test_messages_with_one_id_are_told_apart(broker: Broker, queue: str) -> None:
    missing = new_name()

    outcomes = broker.publish([Message(routing_key=name, body=b"", message_id="same") for name in (missing, queue)])

    assert [type(outcome) for outcome in outcomes] == [QueueMissingError, type(None)]


def test_an_exchange_that_does_not_exist_is_reported_and_publishing_goes_on(broker: Broker, queue: str) -> None:
    lost = Message(routing_key="key", body=b"", exchange=new_name())

    outcomes = broker.publish([lost, Message(routing_key=queue, body=b"")])

    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailableError, type(None)]
    assert [type(outcome) for outcome in broker.publish([lost])] == [BrokerUnavailableError]


def test_a_message_above_the_limit_is_refused_before_anything_is_sent(broker: Broker, queue: str) -> None:
    huge = Message(routing_key=queue, body=bytes(16 * 1024 * 1024 + 1))

    with pytest.raises(ProtocolError, match=queue):
        broker.publish([Message(routing_key=queue, body=b"small"), huge])

    assert broker.subscribe(queue, prefetch=1).take(at_most=1, wait_s=SOON_S) == []


def test_a_queue_that_refuses_when_full_is_reported(broker: Broker) -> None:
    name = new_name()
    broker.declare(queues=[QueueSpec(name=name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})])
    send(broker, name, "first")

    [outcome] = broker.publish([Message(routing_key=name, body=b"second")])

    assert isinstance(outcome, BrokerUnavailableError)


def test_a_queue_that_has_refused_takes_more_when_there_is_room(broker: Broker) -> None:
    name = new_name()
    broker.declare(queues=[QueueSpec(name=name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})])
    send(broker, name, "first")
    for _ in range(3):
        [outcome] = broker.publish([Message(routing_key=name, body=b"refused")])
        assert isinstance(outcome, BrokerUnavailableError)
    subscription = broker.subscribe(name, prefetch=9)
    subscription.ack(take(subscription, 1))

    def is_taken() -> bool:
        return broker.publish([Message(routing_key=name, body=b"second")]) == [None]

    wait_until(is_taken, timeout_s=PATIENCE_S, what="room for another one")
    assert bodies(take(subscription, 1)) == ["second"]


def test_a_queue_that_drops_when_full_keeps_the_newest(broker: Broker) -> None:
    name = new_name()
    broker.declare(queues=[QueueSpec(name=name, arguments={"x-max-length": 2, "x-overflow": "drop-head"})])

    send(broker, name, "1", "2", "3")

    assert bodies(take(broker.subscribe(name, prefetch=9), 2)) == ["2", "3"]


def test_messages_are_taken_in_the_order_of_their_publication(broker: Broker, queue: str) -> None:
    sent = [str(number) for number in range(300)]
    subscription = broker.subscribe(queue, prefetch=500)

    send(broker, queue, *sent)

    assert bodies(take(subscription, 300)) == sent


def test_no_more_is_handed_out_than_the_prefetch_until_some_are_acked(broker: Broker, queue: str) -> None:
    send(broker, queue, "1", "2", "3", "4")
    subscription = broker.subscribe(queue, prefetch=2)
    first = take(subscription, 2)

    more_at_first = subscription.take(at_most=9, wait_s=SOON_S)
    subscription.ack(first)

    assert more_at_first == []
    assert bodies(take(subscription, 2)) == ["3", "4"]


def test_acks_in_another_order_ack_what_they_name(client: Callable[[], Broker], broker: Broker, queue: str) -> None:
    send(broker, queue, "1", "2", "3")
    other = client()
    subscription = other.subscribe(queue, prefetch=3)
    one, two, three = take(subscription, 3)

    subscription.ack([three])
    subscription.ack([one])
    other.close()

    assert two.body == b"2"
    again = broker.subscribe(queue, prefetch=9)
    assert bodies(take(again, 1)) == ["2"]
    assert again.take(at_most=9, wait_s=SOON_S) == []


def test_what_is_released_comes_again_and_says_so(broker: Broker, queue: str) -> None:
    send(broker, queue, "1")
    subscription = broker.subscribe(queue, prefetch=1)
    [first] = take(subscription, 1)

    subscription.release([first])

    [again] = take(subscription, 1)
    assert again.body == b"1"
    assert again.is_redelivered


def test_what_was_delivered_too_often_becomes_a_dead_letter_with_its_reason(broker: Broker) -> None:
    exchange, dead, name = new_name(), new_name(), new_name()
    limited = {"x-queue-type": "quorum", "x-delivery-limit": 1, "x-dead-letter-exchange": exchange}
    broker.declare(
        exchanges=[ExchangeSpec(name=exchange, kind="fanout")],
        queues=[QueueSpec(name=dead, bindings=[(exchange, "")]), QueueSpec(name=name, arguments=limited)],
    )
    send(broker, name, "poison")
    subscription = broker.subscribe(name, prefetch=1)

    subscription.release(take(subscription, 1))
    subscription.release(take(subscription, 1))

    [letter] = take(broker.subscribe(dead, prefetch=1), 1)
    assert letter.body == b"poison"
    assert letter.headers["x-death"][0]["queue"] == name
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"


def test_closing_a_subscription_gives_back_what_was_not_acked(broker: Broker, queue: str) -> None:
    send(broker, queue, "1", "2", "3")
    subscription = broker.subscribe(queue, prefetch=3)
    subscription.ack(take(subscription, 1))

    subscription.close()

    assert bodies(take(broker.subscribe(queue, prefetch=9), 2)) == ["2", "3"]


def test_closing_the_broker_gives_back_what_was_not_acked(
    client: Callable[[], Broker], broker: Broker, queue: str
) -> None:
    send(broker, queue, "1", "2")
    other = client()
    subscription = other.subscribe(queue, prefetch=9)
    subscription.ack(take(subscription, 1))

    other.close()
    other.close()

    assert bodies(take(broker.subscribe(queue, prefetch=9), 1)) == ["2"]


def test_an_ack_that_comes_too_late_does_nothing(client: Callable[[], Broker], broker: Broker, queue: str) -> None:
    send(broker, queue, "1")
    other = client()
    subscription = other.subscribe(queue, prefetch=1)
    stale = take(subscription, 1)
    subscription.close()

    subscription.ack(stale)
    subscription.release(stale)

    [again] = take(broker.subscribe(queue, prefetch=1), 1)
    assert again.is_redelivered
    assert other.publish([Message(routing_key=queue, body=b"2")]) == [None]


def test_an_ack_said_twice_does_no_harm(broker: Broker, queue: str) -> None:
    send(broker, queue, "1", "2")
    subscription = broker.subscribe(queue, prefetch=1)
    first = take(subscription, 1)

    subscription.ack(first)
    subscription.ack(first)

    assert bodies(take(subscription, 1)) == ["2"]


def test_after_closing_publishing_answers_with_errors(client: Callable[[], Broker], queue: str) -> None:
    other = client()
    other.close()

    outcomes = other.publish([Message(routing_key=queue, body=b"")])

    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailableError]
    assert not other.is_connected


def test_a_queue_that_appears_later_is_consumed_then(broker: Broker) -> None:
    name = new_name()
    subscription = broker.subscribe(task_queue_spec(name).name, prefetch=1)
    assert subscription.take(at_most=1, wait_s=SOON_S) == []

    send(broker, declared(broker, name), "1")

    assert bodies(take(subscription, 1)) == ["1"]


def test_declaring_again_changes_nothing(broker: Broker) -> None:
    name = new_name()
    send(broker, declared(broker, name), "1")

    broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, task_queue_spec(name)])
    broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, task_queue_spec(name)])

    assert bodies(take(broker.subscribe(task_queue_spec(name).name, prefetch=1), 1)) == ["1"]


def test_a_queue_that_exists_with_other_arguments_is_named_with_the_argument(broker: Broker) -> None:
    name = new_name()
    broker.declare(queues=[QueueSpec(name=name, arguments={"x-max-length": 1})])

    with pytest.raises(ConfigurationError, match=rf"{name}.*x-max-length"):
        broker.declare(queues=[QueueSpec(name=name, arguments={"x-max-length": 2})])

    send(broker, name, "the broker goes on")


def test_an_exchange_that_exists_with_another_kind_is_named(broker: Broker) -> None:
    name = new_name()
    broker.declare(exchanges=[ExchangeSpec(name=name, kind="topic")])

    with pytest.raises(ConfigurationError, match=rf"{name}.*type"):
        broker.declare(exchanges=[ExchangeSpec(name=name, kind="fanout")])


def test_comparing_tells_what_is_the_same_missing_and_different_and_creates_nothing(broker: Broker, queue: str) -> None:
    there = task_queue_spec(queue.removeprefix("shepherd.task."))
    missing = task_queue_spec(new_name())
    other = QueueSpec(name=queue, arguments={**there.arguments, "x-delivery-limit": 3})
    send(broker, queue, "waits")

    compared = broker.compare(
        exchanges=[
            EXCHANGES[0],
            ExchangeSpec(name=EXCHANGES[0].name, kind="topic"),
            ExchangeSpec(name="x", kind="topic"),
        ],
        queues=[there, missing, other],
    )
    again = broker.compare(queues=[missing])

    assert [one.presence for one in compared] == [
        Presence.SAME,
        Presence.DIFFERENT,
        Presence.MISSING,
        Presence.SAME,
        Presence.MISSING,
        Presence.DIFFERENT,
    ]
    assert "type" in compared[1].reason
    assert "x-delivery-limit" in compared[5].reason
    assert compared[3].messages == 1
    assert again == [compared[4]]


def test_a_deleted_queue_is_gone_and_one_that_is_missing_is_no_fault(broker: Broker, queue: str) -> None:
    spec = task_queue_spec(queue.removeprefix("shepherd.task."))

    broker.delete([queue, new_name()])

    assert [one.presence for one in broker.compare(queues=[spec])] == [Presence.MISSING]
    broker.declare(queues=[spec])
    assert [one.presence for one in broker.compare(queues=[spec])] == [Presence.SAME]


def test_a_broker_says_what_it_is(broker: Broker) -> None:
    info = broker.server_info(timeout_s=PATIENCE_S)

    assert info.product
    assert info.version
    assert info.cluster


def test_who_listens_hears_what_its_keys_match(client: Callable[[], Broker], broker: Broker) -> None:
    broker.declare(exchanges=EXCHANGES)
    me, you = f"worker.{new_name()}", f"worker.{new_name()}"
    listeners = {name: client().listen(CONTROL_EXCHANGE, binding_keys=["worker.all", name]) for name in (me, you)}
    for name, listener in listeners.items():
        hear(broker, listener, name)

    for key in (me, "worker.somebody_else", "worker.all"):
        broker.publish([control(key)])

    assert bodies(take(listeners[me], 2)) == [me, "worker.all"]
    assert bodies(take(listeners[you], 1)) == ["worker.all"]


def test_a_control_message_that_nobody_hears_is_no_error(broker: Broker) -> None:
    broker.declare(exchanges=EXCHANGES)

    assert broker.publish([control("publisher.nobody")]) == [None]


def control(key: str) -> Message:
    return Message(
        exchange=CONTROL_EXCHANGE, routing_key=key, body=key.encode(), is_mandatory=False, is_persistent=False
    )


def hear(broker: Broker, listener: Subscription, key: str) -> None:
    """Return when a listener is known to hear, and has nothing left of what proved it."""

    def has_heard() -> list[Delivery]:
        broker.publish([control(key)])
        return listener.take(at_most=1, wait_s=0.1)

    wait_until(has_heard, timeout_s=PATIENCE_S, what="the listener hears")
    while left := listener.take(at_most=100, wait_s=SOON_S):
        listener.ack(left)


def test_an_intake_of_one_queue_holds_one_delivery_at_a_time(broker: Broker, queue: str) -> None:
    send(broker, queue, "1", "2")
    intake = broker.intake([queue])
    first = intake.take(wait_s=PATIENCE_S)
    assert first is not None

    while_busy = intake.take(wait_s=SOON_S)
    intake.ack(first)
    second = intake.take(wait_s=PATIENCE_S)

    assert while_busy is None
    assert second is not None
    assert second.body == b"2"


def test_who_waits_at_an_intake_can_be_roused(broker: Broker, queue: str) -> None:
    intake = broker.intake([queue])
    intake.rouse()
    began = time.monotonic()

    assert intake.take(wait_s=PATIENCE_S) is None
    assert time.monotonic() - began < PATIENCE_S / 2
    broker.publish([Message(routing_key=queue, body=b"")])
    assert intake.take(wait_s=PATIENCE_S) is not None


def test_an_intake_takes_from_its_queues_in_turn(broker: Broker) -> None:
    queues = [declared(broker, new_name()) for _ in range(3)]
    for queue in queues:
        send(broker, queue, *"1234")
    intake = broker.intake(queues)

    taken = []
    for _ in range(12):
        delivery = intake.take(wait_s=PATIENCE_S)
        assert delivery is not None
        taken.append(delivery.queue)
        intake.ack(delivery)

    # The queues may become known one by one, which is why the first turns may be another one's.
    assert all(taken.count(queue) == 4 for queue in queues)
    longest = max(len(list(group)) for _, group in itertools.groupby(taken))
    assert longest <= 3


def test_an_idle_intake_gets_what_comes_to_any_of_its_queues(broker: Broker) -> None:
    queues = [declared(broker, new_name()) for _ in range(3)]
    intake = broker.intake(queues)

    for queue in [*queues, *reversed(queues)]:
        assert intake.take(wait_s=0.05) is None
        send(broker, queue, queue)
        delivery = intake.take(wait_s=PATIENCE_S)
        assert delivery is not None
        assert delivery.body.decode() == queue
        intake.ack(delivery)


def test_an_intake_waits_for_a_queue_that_does_not_exist_yet(broker: Broker) -> None:
    present, later = declared(broker, new_name()), new_name()
    intake = broker.intake([present, task_queue_spec(later).name])
    assert intake.take(wait_s=SOON_S) is None

    send(broker, declared(broker, later), "1")

    delivery = intake.take(wait_s=PATIENCE_S)
    assert delivery is not None
    assert delivery.body == b"1"


@pytest.mark.parametrize("number", [1, 2])
def test_what_an_intake_releases_comes_again(broker: Broker, number: int) -> None:
    queues = [declared(broker, new_name()) for _ in range(number)]
    send(broker, queues[0], "1")
    intake = broker.intake(queues)
    first = intake.take(wait_s=PATIENCE_S)
    assert first is not None

    intake.release(first)

    again = intake.take(wait_s=PATIENCE_S)
    assert again is not None
    assert again.is_redelivered


@pytest.mark.parametrize("number", [1, 2])
def test_a_delivery_in_hand_can_be_acked_after_its_intake_was_closed(
    client: Callable[[], Broker], broker: Broker, number: int
) -> None:
    queues = [declared(broker, new_name()) for _ in range(number)]
    send(broker, queues[0], "1", "2")
    worker = client()
    intake = worker.intake(queues)
    in_hand = intake.take(wait_s=PATIENCE_S)
    assert in_hand is not None

    intake.close()
    intake.ack(in_hand)
    worker.close()

    left = broker.subscribe(queues[0], prefetch=9)
    assert bodies(take(left, 1)) == ["2"]
    assert left.take(at_most=9, wait_s=SOON_S) == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_paused_intake_gets_nothing_until_it_takes_again(
    client: Callable[[], Broker], broker: Broker, number: int
) -> None:
    queues = [declared(broker, new_name()) for _ in range(number)]
    send(broker, queues[0], "long", "next")
    intake = client().intake(queues)
    long = intake.take(wait_s=PATIENCE_S)
    assert long is not None

    intake.pause()
    intake.ack(long)
    [crossed] = take(subscription := broker.subscribe(queues[0], prefetch=1), 1)
    subscription.ack([crossed])
    subscription.close()
    send(broker, queues[-1], "later")

    assert crossed.body == b"next"
    assert not crossed.is_redelivered
    later = intake.take(wait_s=PATIENCE_S)
    assert later is not None
    assert later.body == b"later"


@pytest.mark.parametrize("number", [1, 2])
def test_an_idle_intake_can_be_paused(client: Callable[[], Broker], broker: Broker, number: int) -> None:
    queues = [declared(broker, new_name()) for _ in range(number)]
    intake = client().intake(queues)
    assert intake.take(wait_s=SOON_S) is None

    intake.pause()
    intake.pause()
    send(broker, queues[0], "1")

    [elsewhere] = take(subscription := broker.subscribe(queues[0], prefetch=1), 1)
    assert not elsewhere.is_redelivered
    subscription.close()
    again = intake.take(wait_s=PATIENCE_S)
    assert again is not None
    assert again.body == b"1"


@pytest.mark.parametrize("number", [1, 2])
def test_an_intake_is_idle_while_its_queues_are_empty_and_it_takes(broker: Broker, number: int) -> None:
    queues = [declared(broker, new_name()) for _ in range(number)]
    intake = broker.intake(queues)

    wait_until(lambda: intake.take(wait_s=0.05) or intake.idle_s > SOON_S, timeout_s=PATIENCE_S, what="idleness")
    send(broker, queues[0], "1")
    delivery = intake.take(wait_s=PATIENCE_S)
    assert delivery is not None
    while_busy = intake.idle_s
    intake.ack(delivery)
    wait_until(lambda: intake.take(wait_s=0.05) or intake.idle_s > 0, timeout_s=PATIENCE_S, what="idleness")
    intake.pause()

    assert while_busy == 0
    assert intake.idle_s == 0


def test_who_listens_can_tell_that_it_was_established(broker: Broker) -> None:
    broker.declare(exchanges=EXCHANGES)
    listener = broker.listen(CONTROL_EXCHANGE, binding_keys=["worker.all"])

    wait_until(lambda: listener.generation, timeout_s=PATIENCE_S, what="the listener hears")

    assert listener.generation == 1
    broker.close()
    assert listener.generation is None
