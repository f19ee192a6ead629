"""Rows 1, 2, 5 and 27: a worker dies, stands still, or never beats."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from shepherd.broker import connect
from shepherd.broker.port import Broker, Message
from shepherd.broker.topology import REPLIES, task_queue, task_queue_spec
from shepherd.wire.envelope import Claimed, TaskEnvelope
from tests.support.faults.system import FaultSystem, fault_system

#: What rows 1 allows, in seconds: the broker gives a young task to another worker; a claimed one is lost after its
#: lease of 3 s, and a quarter of it for looking.
_REDELIVERED_S = 5.0
_LOST_S = 3.0 * 75 / 60
#: What a machine with two cores, and a test suite on them, may add.
_BUSY_S = 10.0


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """Two workers with one slot each."""
    with fault_system(tmp_path_factory.mktemp("workers"), workers=2, slots=1) as ours:
        yield ours


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_a_young_task_of_a_killed_worker_is_delivered_again(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}))
    (first,) = faulty.wait_executed(run)

    killed = faulty.worker_of(first)
    faulty.kill(killed)
    began = time.monotonic()
    both = faulty.wait_executed(run, 2, timeout_s=_REDELIVERED_S)

    took_s = time.monotonic() - began
    gate.touch()
    assert faulty.wait_status(run, "succeeded")["tasks"][0]["attempts"][0]["attempt"] == 1
    assert [execution.attempt for execution in both] == [1, 1]
    faulty.restart(killed)
    faulty.conclude("1", "worker killed -9, task young", more=f"delivered again after {took_s:.1f} s")


def test_a_claimed_task_of_a_killed_worker_is_lost_and_tried_again(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}))
    (first,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)

    killed = faulty.worker_of(first)
    faulty.kill(killed)
    began = time.monotonic()
    faulty.wait_attempt(run, "lost", timeout_s=_LOST_S + _BUSY_S)

    took_s = time.monotonic() - began
    gate.touch()
    both = faulty.wait_executed(run, 2)
    assert faulty.wait_status(run, "succeeded")
    assert faulty.attempts(run) == ["lost", "succeeded"]
    assert [execution.attempt for execution in both] == [1, 2]
    faulty.restart(killed)
    faulty.conclude("1", "worker killed -9, task claimed", more=f"lost after {took_s:.1f} s")


def test_a_late_reply_changes_nothing_that_was_recorded(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}))
    (first,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)

    with _standing_still(faulty, faulty.worker_of(first)):
        faulty.wait_executed(run, 2)
        gate.touch()
        before = faulty.wait_status(run, "succeeded")

    faulty.wait_ended_execution(first)
    faulty.conclude("2", "worker in SIGSTOP, task claimed")
    assert faulty.run(run)["tasks"][0]["result"] == before["tasks"][0]["result"]
    assert faulty.attempts(run) == ["lost", "succeeded"]


def test_a_late_success_is_taken_while_the_next_attempt_is_unclaimed(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}))
    (first,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)
    stopped = faulty.worker_of(first)
    other = next(name for name in ("worker-1", "worker-2") if name != stopped)
    faulty.system.stop(other)

    with _standing_still(faulty, stopped):
        faulty.wait_attempt(run, "lost")
        faulty.wait_attempt(run, "published", no=2)
        gate.touch()

    faulty.wait_status(run, "succeeded")
    faulty.restart(other)
    found = faulty.conclude("2", "worker in SIGSTOP, next attempt unclaimed")
    assert faulty.attempts(run) == ["succeeded", "withdrawn"]
    # The worker is free as soon as it has replied, and may have the second one before it is told.
    assert len(faulty.executions(run)) <= 2
    assert found.beyond == []


def test_an_attempt_that_is_claimed_and_never_named_again_is_lost(faulty: FaultSystem, gate: Path) -> None:
    for worker in ("worker-1", "worker-2"):
        faulty.system.stop(worker)
    broker = connect(faulty.broker.url, name="stub")
    try:
        broker.declare(queues=[task_queue_spec("step")])
        run = faulty.post(("step", {"n": 5}))
        _claim_and_say_no_more(broker)
        with faulty.injected.lasting("a worker that never beats"):
            faulty.wait_attempt(run, "lost", timeout_s=_LOST_S + _BUSY_S)
    finally:
        broker.close()

    faulty.system.start("worker-1", "worker-2")
    assert faulty.wait_status(run, "succeeded")
    assert faulty.attempts(run) == ["lost", "succeeded"]
    faulty.conclude("5", "a worker that claims and never beats")


@pytest.mark.parametrize(("seconds", "way"), [(2.0, "claimed"), (0.0, "by way of the dead-letter queue")])
def test_a_task_that_kills_its_worker_each_time_ends_failed(faulty: FaultSystem, seconds: float, way: str) -> None:
    # As often as the queue's own argument says, 20, is only longer.
    faulty.broker.ctl("set_policy", "short", "^shepherd.task.kill_worker$", '{"delivery-limit":2}')

    with faulty.kept_running("worker-1", "worker-2"):
        run = faulty.post(("kill_worker", {"seconds": seconds}), retry_on_lost=1)
        ended = faulty.wait_status(run, "failed", timeout_s=120)
        after = faulty.post(("step", {"n": 27}))
        faulty.wait_status(after, "succeeded")

    assert ended["tasks"][0]["error"]["message"]
    faulty.conclude("27", f"a task that kills its worker, {way}", more=ended["tasks"][0]["error"]["message"])


@contextmanager
def _standing_still(ours: FaultSystem, worker: str) -> Iterator[None]:
    """Stop a worker with everything that it started, and let it go on at the end."""
    process = psutil.Process(ours.system.pid(worker))
    family = [process, *process.children(recursive=True)]
    with ours.injected.lasting("worker stopped"):
        for member in family:
            member.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for member in family:
                member.send_signal(signal.SIGCONT)


def _claim_and_say_no_more(broker: Broker) -> None:
    intake = broker.intake([task_queue("step")])
    delivery = intake.take(wait_s=30)
    assert delivery is not None
    token = TaskEnvelope.parse(delivery.body).token
    claimed = Claimed(token=token, worker="stub", at=datetime.now(UTC))
    message = Message(routing_key=REPLIES, body=claimed.to_bytes(), type="claimed")
    assert broker.publish([message]) == [None]
    intake.ack(delivery)
    # The ack isn't waited for; what follows on the connection is sent after it.
    threading.Event().wait(0.2)
    intake.close()
