"""Rows 24 to 26, and envelopes of row 29: what a worker may answer, by a stub that answers anything."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from shepherd.broker import connect
from shepherd.broker.port import Broker, Message
from shepherd.broker.topology import REPLIES, task_queue, task_queue_spec
from shepherd.wire.envelope import Finished, Started, TaskEnvelope
from shepherd.wire.value import Inline
from tests.support.faults.system import FaultSystem
from tests.support.waiting import wait_until

#: Served by nobody but these tests.
_NAME = "answered_by_hand"


@pytest.fixture
def broker(faulty: FaultSystem) -> Iterator[Broker]:
    link = connect(faulty.broker.url, name="stub")
    link.declare(queues=[task_queue_spec(_NAME)])
    yield link
    link.close()


def test_a_reply_that_comes_three_times_and_out_of_order_is_recorded_once(faulty: FaultSystem, broker: Broker) -> None:
    run = faulty.post(_NAME, ("step", {"n": 24}))
    token = _take(broker)

    started = Started(token=token, worker="stub", at=datetime.now(UTC)).to_bytes()
    _say(broker, *[_finished(token)] * 3, started, _finished(token))
    faulty.injected.note("a reply four times, and its beginning last", may_repeat=False)

    faulty.wait_status(run, "succeeded")
    assert len(faulty.executions(run, of=1)) == 1
    _conclude(faulty, "24", "a reply four times, its beginning after its end")


def test_a_reply_that_nobody_waits_for_changes_nothing(faulty: FaultSystem, broker: Broker) -> None:
    finished, cancelled, open_run = faulty.post(_NAME), faulty.post(_NAME), faulty.post(_NAME)
    first, second, third = _take(broker), _take(broker), _take(broker)
    _say(broker, _finished(first))
    faulty.wait_status(finished, "succeeded")
    assert faulty.call("cancel", cancelled).is_success
    before = [faulty.run(run) for run in (finished, cancelled)]

    for token in (first, second, "unknown", third[:-1] + "_"):
        _say(broker, _finished(token, {"n": "another", "attempt": 1}))
        faulty.injected.note("a reply that nobody waits for", may_repeat=False)
    _say(broker, _finished(third))
    faulty.wait_status(open_run, "succeeded")

    after = [faulty.run(run) for run in (finished, cancelled)]
    assert [(run["status"], run["tasks"][0]["result"]) for run in after] == [
        (run["status"], run["tasks"][0]["result"]) for run in before
    ]
    assert "replies.dropped" in faulty.system.log("task-publisher")
    _conclude(faulty, "25", "replies for unknown, finished and cancelled tasks, with a wrong token")


def test_of_100_replies_one_that_is_refused_is_buried_alone(faulty: FaultSystem, broker: Broker) -> None:
    runs = [faulty.post(_NAME) for _ in range(100)]
    tokens = [_take(broker) for _ in runs]
    broken = _finished(tokens[50]).replace(b'"stub"', b'"\\ud800"')

    _say(broker, *[broken if n == 50 else _finished(token) for n, token in enumerate(tokens)])
    faulty.injected.note("a reply with half a surrogate pair among 100", may_repeat=False)

    for number, run in enumerate(runs):
        if number != 50:
            faulty.wait_status(run, "succeeded")
    wait_until(lambda: _buried(faulty, "surrogate"), timeout_s=20, what="the dead letter with its reason")
    _say(broker, _finished(tokens[50]))
    _conclude(faulty, "26", "one of 100 replies is refused")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 10_000,
        b"{",
        b"NaN",
        b'{"v": 0, "type": "finished", "token": 5}',
        b'{"v": 99, "type": "finished"}',
        b'{"v": 0, "v": 0, "type": "finished"}',
        b'{"v": 0, "type": "finished", "elapsed_s": 1e400}',
        b"\x1f\x8b\x08\x00" + b"\0" * 100,
        b"\xff" * 1000,
        b'{"v": 0, "type": "finished", "token": "' + b"9" * 1_000_000 + b'"}',
    ],
    ids=range(11),
)
def test_a_body_that_is_no_reply_is_buried_and_blocks_nothing(faulty: FaultSystem, broker: Broker, body: bytes) -> None:
    before = len(faulty.records().dead)
    _say(broker, body)
    faulty.injected.note("a body that is no reply", may_repeat=False)

    wait_until(lambda: len(faulty.records().dead) > before, timeout_s=20, what="a dead letter")

    faulty.wait_status(faulty.post("step"), "succeeded")
    assert all(row["reason"] for row in faulty.records().dead.values())


def test_a_queue_of_tasks_is_not_blocked_by_what_is_no_task(faulty: FaultSystem, broker: Broker) -> None:
    bodies = [b"", b"{", b"[" * 10_000, b'{"v": 99, "type": "task"}', b"\xff" * 100, b'{"v": 0, "type": "task"}']
    _publish(broker, task_queue("step"), bodies, kind="task")
    for _ in bodies:
        faulty.injected.note("a body that is no task", may_repeat=False)

    run = faulty.post("step")

    faulty.wait_status(run, "succeeded")
    _conclude(faulty, "29", "bodies that are no envelopes, in the queues of replies and tasks")


def _take(broker: Broker) -> str:
    intake = broker.intake([task_queue(_NAME)])
    delivery = intake.take(wait_s=30)
    assert delivery is not None
    intake.ack(delivery)
    intake.close()
    return TaskEnvelope.parse(delivery.body).token


def _finished(token: str, result: Any = None) -> bytes:
    return Finished(
        token=token, worker="stub", at=datetime.now(UTC), elapsed_s=0.1, result=Inline(result or {"n": 1})
    ).to_bytes()


def _say(broker: Broker, *bodies: bytes) -> None:
    _publish(broker, REPLIES, bodies, kind="finished")


def _publish(broker: Broker, queue: str, bodies: Sequence[bytes], *, kind: str) -> None:
    messages = [Message(routing_key=queue, body=body, type=kind, message_id=f"m{n}") for n, body in enumerate(bodies)]
    assert broker.publish(messages) == [None] * len(bodies)


def _buried(faulty: FaultSystem, word: str) -> bool:
    return any(word in json.dumps(row["reason"]) for row in faulty.records().dead.values())


def _conclude(faulty: FaultSystem, row: str, fault: str) -> None:
    """Conclude as all do, but for tasks that a stub has answered: nobody noted those in the ledger."""
    faulty.conclude(row, fault, but=(_NAME,))
