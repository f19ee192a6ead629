"""Row 36: cancelled in every status, twice, beside a success, and resumed."""

from pathlib import Path

import pytest

from tests.support.faults.system import FaultSystem
from tests.support.waiting import wait_until


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_what_is_cancelled_while_queued_is_not_executed_afterwards(faulty: FaultSystem) -> None:
    for worker in ("worker-1", "worker-2"):
        faulty.system.stop(worker)
    runs = [faulty.post("step", "step") for _ in range(6)]
    for run in runs:
        faulty.wait_attempt(run, "published")

    for run in runs:
        assert faulty.call("cancel", run).is_success
        assert faulty.call("cancel", run).is_success
        faulty.injected.note("cancelled while queued", may_repeat=False)
    faulty.system.start("worker-1", "worker-2")
    faulty.wait_status(faulty.post("step"), "succeeded")

    faulty.conclude("36", "cancelled while queued, twice, worker started afterwards")
    assert {faulty.run(run)["status"] for run in runs} == {"cancelled"}
    assert [faulty.executions(run) for run in runs] == [[]] * len(runs)


@pytest.mark.parametrize("age", ["young", "claimed"])
def test_what_is_cancelled_while_it_is_executed_ends(faulty: FaultSystem, gate: Path, age: str) -> None:
    run = faulty.post(("gated", {"gate": str(gate)}), "step")
    (execution,) = faulty.wait_executed(run)
    if age == "claimed":
        faulty.wait_claimed(run)

    assert faulty.call("cancel", run).is_success
    faulty.injected.note(f"cancelled while {age}", may_repeat=False)

    faulty.wait_status(run, "cancelled")
    wait_until(lambda: not _is_alive(execution.pid), timeout_s=15, what="an end of what was executed")
    faulty.conclude("36", f"cancelled while executed, {age}")
    assert len(faulty.executions(run)) == 1
    assert faulty.executions(run, of=1) == []


def test_a_cancel_that_races_with_a_success_has_one_end(faulty: FaultSystem) -> None:
    runs = [faulty.post(("step", {"seconds": n / 40})) for n in range(20)]

    for run in runs:
        faulty.call("cancel", run)
        faulty.injected.note("cancelled beside a success", may_repeat=False)

    faulty.conclude("36", "cancel racing with success")
    ends = {faulty.run(run)["status"] for run in runs}
    assert ends <= {"succeeded", "cancelled"}


def test_a_cancelled_run_and_a_failed_one_can_be_resumed(faulty: FaultSystem, gate: Path) -> None:
    cancelled = faulty.post(("step", {"n": 1}), ("gated", {"gate": str(gate)}))
    faulty.wait_executed(cancelled, of=1)
    failed = faulty.post(("step", {"n": 1}), ("step", {"n": 2, "failures": 1}))
    faulty.wait_status(failed, "failed")
    assert faulty.call("cancel", cancelled).is_success
    faulty.wait_status(cancelled, "cancelled")
    gate.touch()

    for run in (cancelled, failed):
        faulty.injected.note("resumed")
        assert faulty.call("resume", run, {}).is_success
        faulty.wait_status(run, "succeeded")

    assert len(faulty.executions(failed)) == 1
    faulty.conclude("36", "resumed after a cancel, and after a failure")


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
