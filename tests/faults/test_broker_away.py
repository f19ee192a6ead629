"""Rows 9, 10, 15 and 18: the broker restarts, is away, loses a queue, loses everything."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults.system import FaultSystem
from tests.support.given_brokers import ON_INSTALLED
from tests.support.waiting import wait_until

pytestmark = ON_INSTALLED

#: Row 15: within this a consumer is back whose queue or channel was taken away.
_BACK_S = 30.0


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.mark.parametrize("how", ["gracefully", "killed -9"])
def test_runs_succeed_although_the_broker_restarts(faulty: FaultSystem, how: str) -> None:
    lost = faulty.lost_attempts()
    runs = [faulty.post(("step", {"n": n, "seconds": 0.2}), ("step", {"n": n})) for n in range(60)]
    faulty.wait_executed(runs[2])

    with faulty.injected.lasting(f"broker restarted {how}"):
        if how == "gracefully":
            faulty.system.stop("rabbitmq")
        else:
            faulty.system.kill("rabbitmq")
        faulty.system.start("rabbitmq")
        faulty.wait_broker()

    faulty.conclude("9", f"broker restarted {how}", more=f"{len(runs)} runs live")
    assert {faulty.run(run)["status"] for run in runs} == {"succeeded"}
    assert faulty.lost_attempts() == lost


def test_a_result_arrives_from_the_spool_when_the_broker_is_back(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}), ("step", {"n": 10}))
    (execution,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)

    with faulty.injected.lasting("broker away", may_repeat=False):
        faulty.system.stop("rabbitmq")
        gate.touch()
        faulty.wait_ended_execution(execution)
        # Longer than a lease: it stands still while the Task Publisher is deaf.
        _let_pass(faulty, seconds=5.0)
        faulty.system.start("rabbitmq")
        faulty.wait_broker()

    faulty.wait_status(run, "succeeded")
    assert faulty.attempts(run) == ["succeeded"]
    faulty.conclude("10", "broker away while a claimed task ends")


def test_a_spooled_result_survives_the_worker_that_wrote_it(faulty: FaultSystem, gate: Path) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}))
    (execution,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)
    worker = faulty.worker_of(execution)

    with faulty.injected.lasting("broker away, worker killed", may_repeat=False):
        faulty.system.stop("rabbitmq")
        gate.touch()
        faulty.wait_ended_execution(execution)
        wait_until(lambda: _is_spooled(faulty), timeout_s=10, what="a reply in the spool")
        faulty.system.kill(worker)
        faulty.system.start(worker, "rabbitmq")
        faulty.wait_broker()

    faulty.wait_status(run, "succeeded")
    assert faulty.attempts(run) == ["succeeded"]
    faulty.conclude("10", "broker away, and the worker killed with a result in its spool")


def test_what_a_deleted_queue_held_is_published_again(faulty: FaultSystem) -> None:
    for worker in ("worker-1", "worker-2"):
        faulty.system.stop(worker)
    runs = [faulty.post(("step", {"n": n})) for n in range(10)]
    wait_until(lambda: faulty.queued().get("shepherd.task.step") == 10, timeout_s=30, what="ten tasks in the queue")

    faulty.injected.note("queue deleted")
    faulty.broker.ctl("delete_queue", "shepherd.task.step")
    faulty.system.start("worker-1", "worker-2")

    for run in runs:
        faulty.wait_status(run, "succeeded", timeout_s=_BACK_S + 30)
    faulty.conclude("15", "a task's queue deleted with ten messages")


def test_a_consumer_comes_back_whose_queue_was_deleted(faulty: FaultSystem) -> None:
    for queue in ("shepherd.task.step", "shepherd.replies"):
        faulty.wait_status(faulty.post("step"), "succeeded")
        faulty.injected.note("queue deleted under a consumer")
        faulty.broker.ctl("delete_queue", queue)

        faulty.wait_status(faulty.post("step"), "succeeded", timeout_s=_BACK_S + 30)

    faulty.conclude("15", "a queue deleted under its consumers (basic.cancel)")


def test_a_consumer_comes_back_whose_channel_was_closed_with_406(faulty: FaultSystem, gate: Path) -> None:
    with _late_acks(faulty, at_most_ms=2000):
        run = faulty.post(("gated", {"gate": str(gate)}))
        faulty.wait_executed(run)
        with faulty.injected.lasting("channel closed with 406"):
            wait_until(_said(faulty, "delivery acknowledgement"), timeout_s=30, what="a channel closed with 406")
            others = [faulty.post("step") for _ in range(8)]
            for other in others:
                faulty.wait_status(other, "succeeded", timeout_s=_BACK_S)
            gate.touch()
            faulty.wait_status(run, "succeeded", timeout_s=_BACK_S)

    faulty.conclude("15", "a channel closed with 406 under a worker")


def test_everything_unfinished_is_published_again_after_the_broker_was_wiped(faulty: FaultSystem, gate: Path) -> None:
    claimed = faulty.post(("gated", {"gate": str(gate)}), ("step", {"n": 18}))
    (execution,) = faulty.wait_executed(claimed)
    faulty.wait_claimed(claimed)
    runs = [faulty.post(("step", {"n": n, "seconds": 0.3}), ("step", {"n": n})) for n in range(20)]
    faulty.wait_executed(runs[1])

    with faulty.injected.lasting("broker wiped"):
        faulty.system.kill("rabbitmq")
        shutil.rmtree(faulty.system.config.home / "rabbitmq" / "data")
        faulty.system.start("rabbitmq")
        faulty.wait_broker()
        for run in runs:
            faulty.wait_status(run, "succeeded", timeout_s=90)
    gate.touch()

    assert faulty.wait_status(claimed, "succeeded")
    faulty.conclude("18", "broker wiped", more=f"{len(runs) + 1} runs live")
    assert faulty.ledger.of(execution.task)[0].pid == execution.pid


def _let_pass(faulty: FaultSystem, *, seconds: float) -> None:
    """Let time pass in which nothing may happen to a run that waits for the broker."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until or faulty.unended() == 0, timeout_s=seconds + 5, what="time passed")


def _is_spooled(faulty: FaultSystem) -> bool:
    return any(file.is_file() and file.stat().st_size for file in faulty.system.config.home.rglob("spool/**/*"))


def _restart(faulty: FaultSystem, worker: str, *, hold_s: str) -> None:
    faulty.system.send(worker, signal.SIGTERM)
    wait_until(lambda: not faulty.system.is_running(worker), timeout_s=30, what=f"the end of {worker}")
    faulty.start_worker(worker, environ={"SHEPHERD_HOLD_S": hold_s})
    faulty.wait_serving(worker)


@contextmanager
def _late_acks(faulty: FaultSystem, *, at_most_ms: int) -> Iterator[None]:
    """Have workers ack late, and the broker close channels for it; each channel reads the limit when it is opened."""
    _set_timeout(faulty, at_most_ms, tick_ms=500)
    for worker in ("worker-1", "worker-2"):
        _restart(faulty, worker, hold_s="600")
    try:
        yield
    finally:
        _set_timeout(faulty, 10_800_000, tick_ms=60_000)
        for worker in ("worker-1", "worker-2"):
            _restart(faulty, worker, hold_s="1")


def _set_timeout(faulty: FaultSystem, timeout_ms: int, *, tick_ms: int) -> None:
    for name, value in (("consumer_timeout", timeout_ms), ("channel_tick_interval", tick_ms)):
        faulty.broker.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")


def _said(faulty: FaultSystem, words: str) -> Callable[[], bool]:
    logs = faulty.system.config.home / "rabbitmq" / "log"
    return lambda: any(words in file.read_text(errors="replace") for file in logs.rglob("*.log*"))
