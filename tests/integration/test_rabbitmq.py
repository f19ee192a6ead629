"""What happens to the connection, the channels and the queues while somebody works with them."""

import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

import pytest

from shepherd.broker.port import Delivery, Message, QueueSpec, Subscription
from shepherd.broker.rabbitmq import RabbitBroker
from shepherd.broker.topology import CONTROL_EXCHANGE, EXCHANGES, task_queue_spec
from shepherd.errors import BrokerUnavailableError
from shepherd.site.local.broker_node import BrokerNode
from tests.support.given_brokers import BrokerUnderTest
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

PATIENCE_S = 60.0


@pytest.fixture
def broker(broker_node: BrokerUnderTest) -> Iterator[RabbitBroker]:
    yield from connected(broker_node.url)


@pytest.fixture
def stoppable(own_broker_node: BrokerNode) -> Iterator[RabbitBroker]:
    yield from connected(own_broker_node.url)


@pytest.fixture
def proxy(broker_node: BrokerUnderTest) -> Iterator[Proxy]:
    with Proxy(to_port=port_of(broker_node.url)) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: Proxy, broker_node: BrokerUnderTest) -> Iterator[RabbitBroker]:
    yield from connected(by_way_of(proxy, broker_node.url))


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def by_way_of(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()


def connected(url: str) -> Iterator[RabbitBroker]:
    broker = RabbitBroker(url, name="test")
    try:
        assert broker.wait_connected(timeout_s=PATIENCE_S)
        yield broker
    finally:
        broker.close()


def new_queue(broker: RabbitBroker) -> str:
    spec = task_queue_spec(f"task_{uuid.uuid4().hex}")
    broker.declare(exchanges=EXCHANGES, queues=[spec])
    return spec.name


def publish_until_confirmed(broker: RabbitBroker, queue: str, body: bytes) -> None:
    message = Message(routing_key=queue, body=body)
    wait_until(
        lambda: broker.publish([message], timeout_s=2.0) == [None], timeout_s=PATIENCE_S, what="publishing works again"
    )


def take_body(take: Callable[[], list[Delivery]], body: bytes) -> Delivery:
    def look() -> Delivery | None:
        return next((delivery for delivery in take() if delivery.body == body), None)

    found = wait_until(look, timeout_s=PATIENCE_S, what=f"{body!r} arrives")
    assert found is not None
    return found


def from_subscription(subscription: Subscription) -> Callable[[], list[Delivery]]:
    return lambda: subscription.take(at_most=100, wait_s=1.0)


def test_five_thousand_messages_of_nothing_arrive_once_and_in_order(broker: RabbitBroker) -> None:
    queue = new_queue(broker)
    subscription = broker.subscribe(queue, prefetch=200)
    sent = [f"{number}" for number in range(5000)]

    outcomes = broker.publish([Message(routing_key=queue, body=b"", message_id=one) for one in sent], timeout_s=60.0)

    got: list[str] = []
    while len(got) < len(sent) and (deliveries := subscription.take(at_most=100, wait_s=PATIENCE_S)):
        got += [delivery.message_id for delivery in deliveries]
        subscription.ack(deliveries)
    assert set(outcomes) == {None}
    assert got == sent


def test_several_threads_publish_at_once(broker: RabbitBroker) -> None:
    queue = new_queue(broker)
    outcomes: list[object] = []

    def publish() -> None:
        for _ in range(20):
            outcomes.extend(broker.publish([Message(routing_key=queue, body=b"{}")] * 5))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [None] * 800


@pytest.mark.parametrize("end", [BrokerNode.stop, BrokerNode.kill])
def test_after_a_restart_of_the_broker_everybody_is_back(
    own_broker_node: BrokerNode, stoppable: RabbitBroker, end: Callable[[BrokerNode], None]
) -> None:
    broker = stoppable
    one, two, three = (new_queue(broker) for _ in range(3))
    # RabbitMQ 3.10 can't serve again the queue that was declared last, less than a second before it was killed.
    new_queue(broker)
    subscription = broker.subscribe(one, prefetch=10)
    single, double = broker.intake([two]), broker.intake([three, one + ".none"])
    listener = broker.listen(CONTROL_EXCHANGE, binding_keys=["worker.all"])

    end(own_broker_node)
    wait_until(lambda: not broker.is_connected, timeout_s=PATIENCE_S, what="the loss is noticed")
    [meanwhile] = broker.publish([Message(routing_key=one, body=b"")], timeout_s=0.3)
    own_broker_node.start()

    assert isinstance(meanwhile, BrokerUnavailableError)
    assert broker.wait_connected(timeout_s=PATIENCE_S)
    publish_until_confirmed(broker, one, b"one")
    take_body(from_subscription(subscription), b"one")
    publish_until_confirmed(broker, two, b"two")
    take_body(lambda: list(filter(None, [single.take(wait_s=1.0)])), b"two")
    publish_until_confirmed(broker, three, b"three")
    take_body(lambda: list(filter(None, [double.take(wait_s=1.0)])), b"three")
    control = Message(exchange=CONTROL_EXCHANGE, routing_key="worker.all", body=b"hello", is_mandatory=False)

    def publish_and_listen() -> list[Delivery]:
        broker.publish([control])
        return listener.take(at_most=9, wait_s=0.2)

    take_body(publish_and_listen, b"hello")


def test_what_was_in_hand_at_a_restart_comes_again_and_its_old_ack_does_nothing(
    own_broker_node: BrokerNode, stoppable: RabbitBroker
) -> None:
    queue = new_queue(stoppable)
    subscription = stoppable.subscribe(queue, prefetch=1)
    publish_until_confirmed(stoppable, queue, b"in hand")
    stale = take_body(from_subscription(subscription), b"in hand")

    own_broker_node.stop()
    own_broker_node.start()
    again = take_body(from_subscription(subscription), b"in hand")
    subscription.ack([stale])
    publish_until_confirmed(stoppable, queue, b"next")
    before_the_ack = subscription.take(at_most=1, wait_s=0.3)
    subscription.ack([again])

    assert again.is_redelivered
    assert before_the_ack == []
    take_body(from_subscription(subscription), b"next")


def test_a_queue_deleted_under_its_consumers_is_waited_for_and_others_go_on(
    broker: RabbitBroker, broker_node: BrokerUnderTest
) -> None:
    doomed, other = new_queue(broker), new_queue(broker)
    subscription, bystander = broker.subscribe(doomed, prefetch=1), broker.subscribe(other, prefetch=1)
    single, double = broker.intake([doomed]), broker.intake([doomed, other + ".none"])
    assert (single.take(wait_s=0.2), double.take(wait_s=0.2)) == (None, None)

    broker_node.ctl("delete_queue", doomed)
    publish_until_confirmed(broker, other, b"unharmed")
    take_body(from_subscription(bystander), b"unharmed")
    broker.declare(queues=[QueueSpec(name=doomed, arguments=task_queue_spec("any").arguments)])

    consumers: list[Callable[[], list[Delivery]]] = [
        lambda: subscription.take(at_most=1, wait_s=0.2),
        *(lambda intake=intake: list(filter(None, [intake.take(wait_s=0.2)])) for intake in (single, double)),
    ]

    def is_back(take: Callable[[], list[Delivery]]) -> bool:
        # One each isn't enough: RabbitMQ 3.10 may keep a consumer of the deleted queue, and give it one of them.
        publish_until_confirmed(broker, doomed, b"again")
        return bool(take())

    for take in consumers:
        wait_until(partial(is_back, take), timeout_s=30.0, what="a delivery for each")


def test_a_channel_that_the_broker_closes_is_replaced_and_others_go_on(broker: RabbitBroker) -> None:
    queue, other = new_queue(broker), new_queue(broker)
    subscription, bystander = broker.subscribe(queue, prefetch=1), broker.subscribe(other, prefetch=2)
    publish_until_confirmed(broker, queue, b"mine")
    publish_until_confirmed(broker, other, b"theirs")
    mine = take_body(from_subscription(subscription), b"mine")
    theirs = take_body(from_subscription(bystander), b"theirs")

    # An ack for a tag that was never given out: RabbitMQ closes the channel with 406.
    broker.post(mine.lane.ack, [4711])  # type: ignore[attr-defined]

    again = take_body(from_subscription(subscription), b"mine")
    assert again.is_redelivered
    bystander.ack([theirs])
    publish_until_confirmed(broker, other, b"more")
    take_body(from_subscription(bystander), b"more")


def test_a_connection_that_was_reset_is_replaced(proxy: Proxy, proxied: RabbitBroker) -> None:
    queue = new_queue(proxied)
    subscription = proxied.subscribe(queue, prefetch=1)

    proxy.reset()
    publish_until_confirmed(proxied, queue, b"after")

    take_body(from_subscription(subscription), b"after")


def test_who_listens_can_tell_that_something_may_have_been_missed(proxy: Proxy, proxied: RabbitBroker) -> None:
    listener = proxied.listen(CONTROL_EXCHANGE, binding_keys=["worker.all"])
    wait_until(lambda: listener.generation == 1, timeout_s=PATIENCE_S, what="the listener hears")

    proxy.reset()

    wait_until(lambda: listener.generation == 2, timeout_s=PATIENCE_S, what="the listener hears again")


@pytest.mark.parametrize("number", [1, 2])
def test_who_still_executes_what_a_broken_connection_brought_is_given_nothing(
    proxy: Proxy, proxied: RabbitBroker, broker: RabbitBroker, number: int
) -> None:
    queue = new_queue(broker)
    publish_until_confirmed(broker, queue, b"in hand")
    intake = proxied.intake([queue, f"{queue}.none"][:number])
    stale = take_body(lambda: list(filter(None, [intake.take(wait_s=1.0)])), b"in hand")

    subscription = broker.subscribe(queue, prefetch=1)
    proxy.reset()
    again = take_body(from_subscription(subscription), b"in hand")
    subscription.ack([again])
    subscription.close()
    wait_until(lambda: proxied.is_connected, timeout_s=PATIENCE_S, what="the connection")
    publish_until_confirmed(broker, queue, b"next")
    meanwhile = intake.take(wait_s=1.0)
    intake.ack(stale)

    assert meanwhile is None
    after = take_body(lambda: list(filter(None, [intake.take(wait_s=1.0)])), b"next")
    # A second slot's delivery that had to be given back would say so.
    assert not after.is_redelivered


def test_a_connection_where_nothing_echoes_is_noticed_and_replaced(proxy: Proxy, proxied: RabbitBroker) -> None:
    queue = new_queue(proxied)
    subscription = proxied.subscribe(queue, prefetch=1)

    proxy.stall()
    [meanwhile] = proxied.publish([Message(routing_key=queue, body=b"lost")], timeout_s=0.5)
    wait_until(lambda: not proxied.is_connected, timeout_s=15.0, what="the silence is noticed")
    proxy.reset()
    proxy.resume()

    assert isinstance(meanwhile, BrokerUnavailableError)
    publish_until_confirmed(proxied, queue, b"after")
    take_body(from_subscription(subscription), b"after")


def test_when_a_node_is_gone_the_next_address_is_used_at_once(broker_node: BrokerUnderTest) -> None:
    nobody = broker_node.url.replace(f":{port_of(broker_node.url)}/", f":{free_port()}/")
    with Proxy(to_port=port_of(broker_node.url)) as first:
        broker = RabbitBroker(",".join([nobody, by_way_of(first, broker_node.url), broker_node.url]), name="test")
        assert broker.wait_connected(timeout_s=PATIENCE_S)
        queue = new_queue(broker)
        subscription = broker.subscribe(queue, prefetch=10)
        publish_until_confirmed(broker, queue, b"by the first")
        take_body(from_subscription(subscription), b"by the first")

    publish_until_confirmed(broker, queue, b"by the next")
    take_body(from_subscription(subscription), b"by the next")
    broker.close()


def test_a_broker_that_is_not_there_yet_is_waited_for(own_broker_node: BrokerNode) -> None:
    own_broker_node.stop()
    broker = RabbitBroker(own_broker_node.url, name="early")
    assert not broker.wait_connected(timeout_s=0.5)

    own_broker_node.start()

    assert broker.wait_connected(timeout_s=PATIENCE_S)
    broker.close()


def test_closing_is_quick_when_the_broker_does_not_answer(proxy: Proxy, proxied: RabbitBroker) -> None:
    proxied.subscribe(new_queue(proxied), prefetch=1)
    proxy.stall()
    closing = threading.Thread(target=proxied.close)

    closing.start()
    closing.join(timeout=15.0)

    assert not closing.is_alive()
