"""How many deliveries a slot holds, as RabbitMQ itself counts them."""

import socket
import uuid

from shepherd.broker import connect
from shepherd.broker.port import Broker, Delivery, Message
from shepherd.broker.topology import EXCHANGES, task_queue_spec
from shepherd.errors import QueueMissingError
from tests.support.given_brokers import BrokerUnderTest
from tests.support.waiting import wait_until

PATIENCE_S = 20.0


def unacked(node: BrokerUnderTest, queues: list[str]) -> int:
    return counted(node, queues, "messages_unacknowledged")


def waiting(node: BrokerUnderTest, queues: list[str]) -> int:
    return counted(node, queues, "messages_ready")


def counted(node: BrokerUnderTest, queues: list[str], what: str) -> int:
    lines = node.ctl("list_queues", "name", what).splitlines()
    counts = dict(line.split("\t") for line in lines)
    return sum(int(counts[queue]) for queue in queues)


def connected(node: BrokerUnderTest, name: str) -> Broker:
    broker = connect(node.url, name=name)
    assert broker.wait_connected(timeout_s=PATIENCE_S)
    return broker


def publish_to(broker: Broker, queues: list[str], *, each: int) -> None:
    messages = [Message(routing_key=queue, body=b"{}") for _ in range(each) for queue in queues]
    assert broker.publish(messages) == [None] * len(messages)


def declare_four(broker: Broker) -> list[str]:
    specs = [task_queue_spec(f"task_{uuid.uuid4().hex}") for _ in range(4)]
    broker.declare(exchanges=EXCHANGES, queues=specs)
    return [spec.name for spec in specs]


def test_a_busy_slot_of_four_names_never_holds_more_than_one_delivery(broker_node: BrokerUnderTest) -> None:
    busy, idle = connected(broker_node, "busy"), connected(broker_node, "idle")
    queues = declare_four(busy)
    intake, other_intake = busy.intake(queues), idle.intake(queues)
    # Both wait with a consumer for each name when the messages come, all at once: what crosses has to go back.
    assert intake.take(wait_s=1.0) is None
    assert other_intake.take(wait_s=1.0) is None
    publish_to(busy, queues, each=20)
    in_hand, at_the_other = intake.take(wait_s=PATIENCE_S), other_intake.take(wait_s=PATIENCE_S)
    assert in_hand is not None
    assert at_the_other is not None

    wait_until(lambda: unacked(broker_node, queues) == 2, timeout_s=PATIENCE_S, what="what crossed went back")
    other_intake.ack(at_the_other)
    wait_until(lambda: unacked(broker_node, queues) == 1, timeout_s=PATIENCE_S, what="the idle one holds nothing")
    counts = {unacked(broker_node, queues) for _ in range(3)}

    assert counts == {1}
    intake.ack(in_hand)
    for broker in (busy, idle):
        broker.close()


def test_an_ack_that_goes_on_brings_the_next_one_and_a_pause_gives_it_back(broker_node: BrokerUnderTest) -> None:
    broker = connected(broker_node, "busy")
    queues = declare_four(broker)
    publish_to(broker, queues, each=2)
    intake = broker.intake(queues)
    first = intake.take(wait_s=PATIENCE_S)
    assert first is not None
    wait_until(lambda: waiting(broker_node, queues) == 7, timeout_s=PATIENCE_S, what="all but the first one waiting")

    intake.ack(first, goes_on=True)
    wait_until(lambda: waiting(broker_node, queues) == 6, timeout_s=PATIENCE_S, what="the next one on its way")
    held = unacked(broker_node, queues)
    second = intake.take(wait_s=0)
    assert second is not None
    intake.ack(second, goes_on=True)
    wait_until(lambda: waiting(broker_node, queues) == 5, timeout_s=PATIENCE_S, what="the third one on its way")
    intake.pause()
    wait_until(lambda: waiting(broker_node, queues) == 6, timeout_s=PATIENCE_S, what="the third one given back")

    assert held <= 1
    assert intake.take(wait_s=PATIENCE_S) is not None
    broker.close()


def test_what_comes_is_offered_before_anybody_is_woken(broker_node: BrokerUnderTest) -> None:
    broker = connected(broker_node, "busy")
    queues = declare_four(broker)
    intake = broker.intake(queues)
    offered: list[Delivery] = []

    def every_second(delivery: Delivery) -> bool:
        offered.append(delivery)
        return len(offered) % 2 == 1

    intake.offer_to(every_second)
    publish_to(broker, queues[:2], each=1)
    assert intake.take(wait_s=1.0) is None
    wait_until(lambda: unacked(broker_node, queues) == 1, timeout_s=PATIENCE_S, what="one in hand")
    intake.ack(offered[0], goes_on=True)
    second = intake.take(wait_s=PATIENCE_S)

    assert second is offered[1]
    assert len(offered) == 2
    broker.close()


def test_what_arrives_can_be_answered_on_the_thread_where_it_arrives(broker_node: BrokerUnderTest) -> None:
    broker = connected(broker_node, "busy")
    (queue, *_) = declare_four(broker)
    reactor = broker.reactor
    assert reactor is not None
    ours, theirs = socket.socketpair()
    told: list[object] = []

    def read() -> None:
        told.append(ours.recv(100))
        for name in (queue, "nobody"):
            message = Message(routing_key=name, body=b"{}")
            reactor.send(message, on_sent=lambda: told.append("sent"), on_settled=told.append)

    reactor.watch(ours.fileno(), read)
    theirs.sendall(b"go on")
    wait_until(lambda: len(told) == 5, timeout_s=PATIENCE_S, what="both settled")
    reactor.unwatch(ours.fileno())
    theirs.sendall(b"nobody hears this")
    broker.declare()

    assert told[:3] == [b"go on", "sent", "sent"]
    assert [type(outcome) for outcome in told[3:] if outcome is not None] == [QueueMissingError]
    assert ours.recv(100) == b"nobody hears this"
    for each in (ours, theirs, broker):
        each.close()


def test_eighty_tasks_of_four_names_are_worked_off_one_at_a_time(broker_node: BrokerUnderTest) -> None:
    busy = connected(broker_node, "busy")
    queues = declare_four(busy)
    publish_to(busy, queues, each=20)
    intake = busy.intake(queues)

    held = []
    for number in range(80):
        delivery = intake.take(wait_s=PATIENCE_S)
        assert delivery is not None
        if number % 20 == 0:
            held.append(unacked(broker_node, queues))
        intake.ack(delivery)

    assert intake.take(wait_s=0.3) is None
    # RabbitMQ publishes this count every so often, and may still show the one before.
    assert max(held) <= 1
    busy.close()
