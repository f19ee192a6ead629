"""Waking the Task Publisher costs whoever accepts nothing, whatever the broker does."""

import threading
from collections.abc import Callable

import pytest

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.port import Broker
from shepherd.broker.topology import CONTROL_EXCHANGE, EXCHANGES, PUBLISHER_KEY
from shepherd.pipelines.wakeup import Bell
from shepherd.wire.fields import parse_kind


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.declare(exchanges=EXCHANGES)
    return broker


def test_a_ring_reaches_who_listens(broker: MemoryBroker) -> None:
    listening = broker.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])

    Bell(lambda: broker).ring()

    [delivery] = listening.take(at_most=1, wait_s=10)
    assert parse_kind(delivery.body) == "wake"


def test_a_broker_that_never_answers_delays_nobody() -> None:
    stuck = threading.Event()
    opened = threading.Event()

    def never() -> Broker:
        opened.set()
        stuck.wait()
        raise AssertionError

    bell = Bell(never)
    for _ in range(100):
        bell.ring()

    assert opened.wait(10)


def test_one_connection_serves_every_ring(broker: MemoryBroker) -> None:
    listening = broker.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])
    opened: list[Broker] = []
    bell = Bell(opener(broker, opened))

    for _ in range(3):
        bell.ring()
        assert listening.take(at_most=1, wait_s=10)

    assert len(opened) == 1


def opener(broker: Broker, opened: list[Broker]) -> Callable[[], Broker]:
    def open_broker() -> Broker:
        opened.append(broker)
        return broker

    return open_broker
