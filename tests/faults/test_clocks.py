"""Rows 31 and 34: the clock of Task Publisher, worker or database jumps, by an hour and a day, forward and back."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults.system import FaultSystem, fault_system
from tests.support.faults.thoroughness import is_full
from tests.support.waiting import wait_until

_JUMPS = ("+1h", "-1h", "+1d", "-1d", "+0")


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(tmp_path_factory.mktemp("clocks")) as ours:
        ours.has_one_clock = False
        yield ours


@pytest.mark.parametrize("name", ["task-publisher", "worker-1"])
def test_no_lease_ends_and_no_order_changes_by_a_clock_that_jumps(
    faulty: FaultSystem, tmp_path: Path, name: str
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    _start_by(clock, faulty, name)

    _assert_only_the_clock_jumps(faulty, tmp_path, name, clock.write_text)

    faulty.system.stop(name)
    faulty.conclude("34", f"clock of {name} jumps by an hour and a day, both ways")


def test_a_task_that_nobody_serves_waits_an_hour_for_a_worker_that_appears(faulty: FaultSystem, tmp_path: Path) -> None:
    name, clock = "task-publisher", tmp_path / "clock"
    clock.write_text("+0")
    _start_by(clock, faulty, name)
    waits = faulty.post("served_late", "step")
    faulty.injected.note("a task that nobody serves", may_repeat=False)
    reason = _reason_naming("served_late", faulty, waits)

    clock.write_text("+1h")
    for _ in range(2):
        faulty.wait_status(faulty.post("step"), "succeeded")
    reason_after = _reason_naming("served_late", faulty, waits)
    faulty.start_worker("worker-late", environ={"FAULTS_ALSO": "served_late"})

    faulty.wait_status(waits, "succeeded")
    assert reason_after == reason
    assert len(faulty.executions(waits)) == 1
    for each in ("worker-late", name):
        faulty.system.stop(each)
    faulty.conclude("31", "a worker that appears an hour later", more=f"reason: {reason}")


@pytest.mark.skipif(not is_full(), reason="in make chaos, as all that needs a system of its own for one figure")
def test_no_lease_ends_by_a_database_whose_clock_jumps(tmp_path: Path) -> None:
    with fault_system(tmp_path, is_postgres=True, workers=1) as ours:
        assert ours.postgres is not None
        ours.has_one_clock = False
        clock = ours.postgres.folder / "clock"
        clock.write_text("+0")
        ours.postgres.stop()
        ours.postgres.start(environ=_kept_by(clock))

        _assert_only_the_clock_jumps(ours, tmp_path, "PostgreSQL", clock.write_text)

        ours.conclude("34", "clock of PostgreSQL jumps by an hour and a day, both ways")


def _assert_only_the_clock_jumps(
    faulty: FaultSystem, tmp_path: Path, name: str, jump_to: Callable[[str], object]
) -> None:
    gate = tmp_path / "gate"
    lost = faulty.lost_attempts()
    claimed = faulty.post(("gated", {"gate": str(gate)}), "step")
    faulty.wait_executed(claimed)
    faulty.wait_claimed(claimed)

    for jump in _JUMPS:
        jump_to(jump)
        faulty.injected.note(f"{jump} on {name}", may_repeat=False)
        runs = [faulty.post("step", ("step", {"failures": 1}), retries=1, backoff=0.1) for _ in range(2)]
        for run in runs:
            faulty.wait_status(run, "succeeded")
    gate.touch()

    faulty.wait_status(claimed, "succeeded")
    assert faulty.attempts(claimed) == ["succeeded"]
    assert faulty.lost_attempts() == lost


def _reason_naming(name: str, faulty: FaultSystem, run: dict[str, Any]) -> str:
    """Return why a run waits, once the Task Publisher has come to it."""
    told = wait_until(
        lambda: [reason] if name in (reason := faulty.run(run)["reason"]) else [],
        timeout_s=60,
        what=f"a reason: {name}",
    )
    return str(told[0])


def _start_by(clock: Path, faulty: FaultSystem, name: str) -> None:
    program = faulty.system.program(name)
    faulty.system.add(replace(program, environ={**program.environ, **_kept_by(clock)}))
    faulty.system.stop(name)
    faulty.system.start(name)
    faulty.system.add(program)
    faulty.wait_status(faulty.post("step"), "succeeded")


def _kept_by(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose clock differs from the machine's by what stands in a file."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A jump of the wall clock leaves the monotonic one alone.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
        "PYTHONPATH": str(Path(__file__).parent / "under_faketime"),
    }
