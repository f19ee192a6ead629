"""Row 43: SIGTERM to a worker and to the Task Publisher, under load."""

import os
import signal

import pytest

from tests.support.faults.system import FaultSystem
from tests.support.waiting import wait_until


@pytest.mark.parametrize("name", ["worker-1", "task-publisher"])
def test_nothing_is_cut_short_or_repeated_by_a_sigterm_under_load(faulty: FaultSystem, name: str) -> None:
    runs = [faulty.post(("step", {"n": n, "seconds": 1.5}), ("step", {"n": n})) for n in range(16)]
    faulty.wait_executed(runs[3])

    for _ in range(2):
        _terminate(faulty, name)
        faulty.system.start(name)
        wait_until(lambda: faulty.unended() <= len(runs) // 2, timeout_s=60, what="half of the runs ended")

    faulty.conclude("43", f"SIGTERM to {name.removesuffix('-1')} under load", more=f"{len(runs)} runs live")
    assert [len(faulty.executions(run, of=task)) for run in runs for task in (0, 1)] == [1] * 2 * len(runs)
    assert {faulty.run(run)["status"] for run in runs} == {"succeeded"}


def _terminate(ours: FaultSystem, name: str) -> None:
    # A drain repeats nothing: what hadn't begun goes back, what had ends.
    ours.injected.note(f"SIGTERM to {name}", may_repeat=False)
    os.kill(ours.system.pid(name), signal.SIGTERM)
    wait_until(lambda: not ours.system.is_running(name), timeout_s=30, what=f"the end of {name}")
