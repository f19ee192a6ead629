import threading
from collections.abc import Iterator

import pytest

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.memory_server import MemoryServer
from shepherd.broker.port import Message, QueueSpec
from shepherd.worker.outbox import Outbox


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def broker(server: MemoryServer) -> MemoryBroker:
    broker = MemoryBroker(server, name="test")
    broker.declare(queues=[QueueSpec(name="q")])
    return broker


@pytest.fixture
def outbox(broker: MemoryBroker) -> Iterator[Outbox]:
    outbox = Outbox(broker, stopping=threading.Event())
    outbox.start()
    yield outbox
    outbox.close(wait_s=10)


def _message(body: bytes) -> Message:
    return Message(routing_key="q", body=body)


def _bodies(broker: MemoryBroker, count: int) -> list[bytes]:
    subscription = broker.subscribe("q", prefetch=100)
    bodies: list[bytes] = []
    while len(bodies) < count:
        deliveries = subscription.take(at_most=100, wait_s=10)
        assert deliveries
        bodies += [delivery.body for delivery in deliveries]
    return bodies


def test_delivered_means_confirmed_with_all_before_it(
    outbox: Outbox, server: MemoryServer, broker: MemoryBroker
) -> None:
    outbox.post([_message(b"1")])

    assert outbox.deliver([_message(b"2"), _message(b"3")])
    assert _bodies(broker, 3) == [b"1", b"2", b"3"]


def test_what_the_broker_did_not_take_is_sent_again_in_order(
    outbox: Outbox, server: MemoryServer, broker: MemoryBroker
) -> None:
    server.go_down()
    outbox.post([_message(b"1"), _message(b"2")])
    waiting = threading.Thread(target=outbox.deliver, args=[[_message(b"3")]])
    waiting.start()
    assert waiting.is_alive()

    server.come_back()
    waiting.join(20)

    assert not waiting.is_alive()
    assert _bodies(broker, 3) == [b"1", b"2", b"3"]


def test_a_worker_that_ends_at_once_does_not_wait_for_a_broker(server: MemoryServer, broker: MemoryBroker) -> None:
    outbox = Outbox(broker, stopping=threading.Event())
    outbox.start()
    outbox.close(wait_s=10)

    assert not outbox.deliver([_message(b"late")])
