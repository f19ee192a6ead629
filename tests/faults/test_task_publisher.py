"""Row 6: the Task Publisher is killed with -9 between every two of its arrows."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from tests.support.faults.system import FaultSystem, fault_system
from tests.support.faults.thoroughness import is_full
from tests.support.folders import ROOT
from tests.support.waiting import wait_until

_POINTS = ("before commit", "after commit", "before publish", "after publish", "after take", "before ack", "after ack")
#: How often each point is passed before the kill; `make chaos` tries more.
_PASSED = (1, 2, 4) if is_full() else (2,)
_ENGINES = ["sqlite", "postgres"] if is_full() else ["sqlite"]
_DEATH_S = 60.0


@pytest.fixture(scope="module", params=_ENGINES)
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("crashes")
    with fault_system(folder, is_postgres=request.param == "postgres", slots=4) as ours:
        yield ours


def test_the_task_publisher_may_die_between_any_two_arrows(crashed: FaultSystem) -> None:
    engine = "postgres" if crashed.postgres else "sqlite"
    points = [f"{point}:{passed}" for passed in _PASSED for point in _POINTS]
    crashed.system.stop("task-publisher")

    for point in points:
        _die(crashed, point)
    crashed.system.start("task-publisher")

    found = crashed.conclude("6", f"Task Publisher killed at crash points, {engine}", injected=len(points))
    assert found.runs == {"succeeded": len(crashed.accepted)}


def _die(ours: FaultSystem, point: str) -> None:
    """Run a Task Publisher that kills itself there, and give it work until it has."""
    plain = ours.system.program("task-publisher")
    command = (plain.command[0], str(ROOT / "tests" / "faults" / "crashing_publisher.py"))
    environ = {**plain.environ, "FAULTS_CRASH": point, "PYTHONPATH": str(ROOT / "src")}
    ours.system.add(replace(plain, command=command, environ=environ))
    ours.system.start("task-publisher")
    looks = count()

    def is_dead() -> bool:
        if next(looks) % 8 == 0:
            n = len(ours.accepted)
            project = "led" if n % 2 else "plain"
            ours.post(("led_step", {"n": n}), ("step", {"n": -n}), project=project)
        return not ours.system.is_running("task-publisher")

    wait_until(is_dead, timeout_s=_DEATH_S, what=f"the end of the Task Publisher {point}")
    ours.injected.note("task-publisher killed")
    ours.system.add(plain)
