"""What only the fake can do; what it shares with RabbitMQ is in tests/contract/test_broker.py."""

import pytest

from shepherd.broker import connect
from shepherd.broker.memory import MemoryBroker
from shepherd.broker.memory_server import MemoryServer
from shepherd.broker.port import ExchangeSpec, Message, QueueSpec
from shepherd.errors import BrokerUnavailableError, ConfigurationError

TOPIC = ExchangeSpec(name="topic", kind="topic")


def test_clients_of_one_url_share_a_server() -> None:
    one, other = connect("memory:shared", name="one"), connect("memory:shared", name="other")
    one.declare(queues=[QueueSpec(name="q")])

    other.publish([Message(routing_key="q", body=b"1")])

    [delivery] = one.subscribe("q", prefetch=1).take(at_most=1, wait_s=0)
    assert delivery.body == b"1"


def test_an_outage_gives_back_what_is_in_hand_and_refuses_what_is_published() -> None:
    server = MemoryServer()
    broker = MemoryBroker(server)
    broker.declare(queues=[QueueSpec(name="q")])
    broker.publish([Message(routing_key="q", body=b"1")])
    subscription = broker.subscribe("q", prefetch=1)
    stale = subscription.take(at_most=1, wait_s=0)

    server.go_down()
    [outcome] = broker.publish([Message(routing_key="q", body=b"2")], timeout_s=0)
    subscription.ack(stale)

    assert isinstance(outcome, BrokerUnavailableError)
    assert not broker.is_connected
    assert (server.depth("q"), server.unacked("q")) == (1, 0)
    server.come_back()
    assert subscription.take(at_most=1, wait_s=0)[0].is_redelivered


def test_what_was_published_can_be_asked_for() -> None:
    broker = MemoryBroker()
    broker.declare(queues=[QueueSpec(name="q")])

    broker.publish([Message(routing_key="q", body=b"taken"), Message(routing_key="none", body=b"returned")])

    assert [message.body for message in broker.published] == [b"taken"]


@pytest.mark.parametrize("key", ["worker", "worker.1", "worker.1.2"])
def test_a_hash_stands_for_any_number_of_words(key: str) -> None:
    broker = MemoryBroker()
    broker.declare(exchanges=[TOPIC])
    listener = broker.listen("topic", binding_keys=["worker.#"])

    broker.publish([Message(exchange="topic", routing_key=key, body=b"")])

    assert len(listener.take(at_most=9, wait_s=0)) == 1


def test_a_star_stands_for_one_word() -> None:
    broker = MemoryBroker()
    broker.declare(exchanges=[TOPIC])
    listener = broker.listen("topic", binding_keys=["worker.*"])
    keys = ("worker", "worker.1", "worker.1.2")

    broker.publish([Message(exchange="topic", routing_key=key, body=key.encode(), is_mandatory=False) for key in keys])

    assert [delivery.body for delivery in listener.take(at_most=9, wait_s=0)] == [b"worker.1"]


def test_a_url_of_another_kind_is_refused_with_the_name_of_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_BROKER_URL"):
        connect("http://127.0.0.1", name="test")
