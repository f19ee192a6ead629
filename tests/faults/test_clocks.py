"""Row 34: the clock of the Task Publisher jumps, by an hour and by a day, forward and back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.faults.system import FaultSystem, fault_system

_JUMPS = ("+1h", "-1h", "+1d", "-1d", "+0")


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(tmp_path_factory.mktemp("clocks")) as ours:
        ours.has_one_clock = False
        yield ours


def test_no_lease_ends_and_no_order_changes_by_a_clock_that_jumps(faulty: FaultSystem, tmp_path: Path) -> None:
    name = "task-publisher"
    clock, gate = tmp_path / "clock", tmp_path / "gate"
    clock.write_text("+0")
    _start_by(clock, faulty, name)
    lost = faulty.lost_attempts()
    claimed = faulty.post(("gated", {"gate": str(gate)}), "step")
    faulty.wait_executed(claimed)
    faulty.wait_claimed(claimed)

    for jump in _JUMPS:
        clock.write_text(jump)
        faulty.injected.note(f"{jump} on {name}", may_repeat=False)
        runs = [faulty.post("step", ("step", {"failures": 1}), retries=1, backoff=0.1) for _ in range(2)]
        for run in runs:
            faulty.wait_status(run, "succeeded")
    gate.touch()

    faulty.wait_status(claimed, "succeeded")
    assert faulty.attempts(claimed) == ["succeeded"]
    assert faulty.lost_attempts() == lost
    faulty.conclude("34", "clock of the Task Publisher jumps by an hour and a day, both ways")


def _start_by(clock: Path, faulty: FaultSystem, name: str) -> None:
    """Start a process anew whose clock differs from the machine's by what stands in a file, read at each look."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    program = faulty.system.program(name)
    environ = {
        **program.environ,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A jump of the wall clock leaves the monotonic one alone.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    faulty.system.add(replace(program, environ=environ))
    faulty.system.stop(name)
    faulty.system.start(name)
    faulty.system.add(program)
    faulty.wait_status(faulty.post("step"), "succeeded")
