"""Two Task Publishers on one PostgreSQL: one that dies is replaced, one that was only paused stands aside."""

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.faults.system import FaultSystem, fault_system
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("takeover")
    with fault_system(folder, is_postgres=True, publishers=2, workers=1, slots=4, has_prefect=True) as ours:
        yield ours


@pytest.fixture
def two(pair: FaultSystem) -> FaultSystem:
    pair.forget()
    pair.system.start()
    pair.system.wait_ready()
    return pair


def _led(two: FaultSystem, count: int) -> list[dict[str, Any]]:
    return [
        two.post(("led_step", {"n": n, "seconds": 2}), ("led_thread_step", {"n": n, "seconds": 1}), project="led")
        for n in range(count)
    ]


def _in_prefect(two: FaultSystem, run: dict[str, Any]) -> list[str]:
    """Return the states of a run's flow run and of its task runs, once none of them is under way."""
    address = two.system.environ["PREFECT_API_URL"]

    def shown() -> list[str]:
        flow_run = two.run(run)["prefect"]["flow_run_id"]
        if flow_run is None:
            return []
        state = httpx.get(f"{address}/flow_runs/{flow_run}", timeout=30, trust_env=False).json()["state_type"]
        by = {"flow_runs": {"id": {"any_": [flow_run]}}}
        tasks = httpx.post(f"{address}/task_runs/filter", json=by, timeout=30, trust_env=False).json()
        states = [state, *(task["state_type"] for task in tasks)]
        # Those that a dead Task Publisher left behind, Crashed, come on top of the two.
        is_whole = len(states) - states.count("CRASHED") > 2
        return states if is_whole and not {"RUNNING", "PENDING"} & set(states) else []

    return wait_until(shown, timeout_s=90, what=f"the end of run {run['number']} in Prefect") or []


def test_a_dead_task_publishers_flows_are_taken_over_and_shown_right(two: FaultSystem) -> None:
    runs = _led(two, 8)
    two.wait_executing(1)

    two.kill("task-publisher")

    two.conclude("6", "one of two Task Publishers killed, flows of both under way")
    for run in runs:
        assert two.run(run)["status"] == "succeeded"
        state, *tasks = _in_prefect(two, run)
        assert state == "COMPLETED"
        assert tasks.count("COMPLETED") == 2
        assert set(tasks) <= {"COMPLETED", "CRASHED"}


def test_a_paused_task_publisher_stands_aside_when_it_goes_on(two: FaultSystem) -> None:
    runs = _led(two, 6)
    two.wait_executing(len(two.ledger.executions()) + 1)

    with two.injected.lasting("task-publisher paused"):
        two.system.send("task-publisher", signal.SIGSTOP)
        wait_until(lambda: two.unended() == 0, timeout_s=90, what="all runs ended by the other one")
        two.system.send("task-publisher", signal.SIGCONT)

    two.conclude("7", "one of two Task Publishers paused until the other has ended its runs, then going on")
    assert {two.run(run)["status"] for run in runs} == {"succeeded"}
