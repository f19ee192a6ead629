"""The commands of docs/operations.md for a cluster that was stopped in the wrong order."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from shepherd.broker import connect
from shepherd.broker.port import Broker, Message, Presence
from shepherd.broker.topology import EXCHANGES, LOGS, STANDING_QUEUES, task_queue_spec
from shepherd.errors import BrokerUnavailableError
from shepherd.site.local.broker_node import BrokerNode
from tests.support.cluster import cluster_running
from tests.support.folders import ROOT

_TASK = task_queue_spec("kept")


def commands(section: str) -> list[str]:
    """Return what a section of the document tells to type."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^ {4,}(sudo .*)$", body, re.MULTILINE)


def typed(node: BrokerNode) -> dict[str, Callable[[], object]]:
    """What the commands are on a node of ours."""
    return {
        "sudo systemctl stop rabbitmq-server": node.stop,
        "sudo systemctl start rabbitmq-server": node.start,
        "sudo rabbitmqctl force_boot": lambda: node.ctl("force_boot"),
    }


@contextmanager
def connected(node: BrokerNode) -> Iterator[Broker]:
    broker = connect(node.url, name="test")
    try:
        assert broker.wait_connected(timeout_s=30)
        yield broker
    finally:
        broker.close()


def test_a_cluster_stopped_in_the_wrong_order_boots_by_force_and_keeps_its_tasks() -> None:
    sent = [Message(routing_key=_TASK.name, body=b"{}", message_id=f"{number}") for number in range(20)]
    with cluster_running() as (first, second, last):
        with connected(first) as broker:
            broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, _TASK])
            assert set(broker.publish(sent[:-1])) == {None}
        # The first one down knows nothing of what comes afterwards.
        first.stop()
        with connected(second) as broker:
            with pytest.raises(BrokerUnavailableError, match="down or inaccessible"):
                broker.declare(queues=STANDING_QUEUES)
            found = {each.name: each.presence for each in broker.compare(queues=[*STANDING_QUEUES, _TASK])}
            assert broker.publish(sent[-1:]) == [None]
        assert {name for name, presence in found.items() if presence is Presence.AWAY} == {LOGS}
        assert Presence.MISSING not in found.values()
        second.stop()
        last.stop()
        waiting = threading.Thread(target=_start_in_vain, args=[first])
        waiting.start()
        waiting.join(timeout=5)
        assert waiting.is_alive()

        means = typed(first)
        for command in commands("A node that doesn't come up: force_boot"):
            means.pop(command)()
        waiting.join()
        # Tasks are there as soon as most of the nodes are.
        second.start()

        with connected(second) as broker:
            taken = _taken(broker, len(sent))
            broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, _TASK])
        last.start()
        assert means == {}
        assert taken == [message.message_id for message in sent]
        assert last.ctl("list_queues", "name", "state").count("running") == len(STANDING_QUEUES) + 1


def _start_in_vain(node: BrokerNode) -> None:
    with suppress(BrokerUnavailableError):
        node.start()


def _taken(broker: Broker, most: int) -> list[str]:
    intake = broker.intake([_TASK.name])
    taken: list[str] = []
    while len(taken) < most and (delivery := intake.take(wait_s=30)) is not None:
        taken.append(delivery.message_id)
        intake.ack(delivery)
    return taken
