"""Row 23: Prefect's server is away at the start, in the middle, for ever; it stands still; it is slow.

Prefect follows: a run goes its way whether or not Prefect's server is there, and says so.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.faults.system import FaultSystem, fault_system
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

#: What a run may take longer than without a fault, in seconds.
_ALLOWED_S = 30.0
_NOTE = "Prefect's API has not answered for 10 s; the run goes on without it"


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(tmp_path_factory.mktemp("prefect"), has_prefect=True) as ours:
        yield ours


@pytest.fixture(scope="module")
def plain_s(shared_system: FaultSystem) -> float:
    """What the slower of the two pipelines takes while Prefect follows."""
    runs = _pair(shared_system)
    for run in runs:
        shared_system.wait_status(run, "succeeded", timeout_s=120)
    slowest: float = max(shared_system.run(run)["duration_s"] for run in runs)
    return slowest


def test_runs_end_while_prefects_server_is_away_before_the_start(faulty: FaultSystem, plain_s: float) -> None:
    with faulty.injected.lasting("Prefect away at the start", may_repeat=False):
        faulty.system.stop("prefect")
        faulty.system.stop("task-publisher")
        faulty.system.start("task-publisher")
        runs = _pair(faulty)

        slowest = _assert_in_time(faulty, runs, plain_s)
        notes = {_note(faulty, run) for run in runs}

    faulty.system.start("prefect")
    _assert_shown(faulty, runs)
    assert notes == {_NOTE}
    _conclude(faulty, "away at the start, for as long as the runs took", slowest, plain_s)


def test_runs_end_while_prefects_server_is_killed_in_the_middle(faulty: FaultSystem, plain_s: float) -> None:
    runs = _pair(faulty, seconds=2)
    for run in runs:
        faulty.wait_executed(run)

    with faulty.injected.lasting("Prefect killed in the middle", may_repeat=False):
        faulty.system.kill("prefect")
        runs += _pair(faulty)
        slowest = _assert_in_time(faulty, runs, plain_s + 2 * 2)

    faulty.system.start("prefect")
    _assert_shown(faulty, runs)
    _conclude(faulty, "killed in the middle of runs", slowest, plain_s)


def test_runs_end_while_prefects_server_stands_still(faulty: FaultSystem, plain_s: float) -> None:
    runs = _pair(faulty, seconds=2)
    for run in runs:
        faulty.wait_executed(run)

    with faulty.injected.lasting("Prefect stopped", may_repeat=False):
        faulty.system.send("prefect", signal.SIGSTOP)
        runs += _pair(faulty)
        slowest = _assert_in_time(faulty, runs, plain_s + 2 * 2)
        notes = {_note(faulty, run) for run in runs[2:]}
        faulty.system.send("prefect", signal.SIGCONT)

    _assert_shown(faulty, runs)
    assert notes == {_NOTE}
    _conclude(faulty, "stopped with SIGSTOP", slowest, plain_s)


def test_runs_end_while_prefects_server_takes_5_seconds_to_answer(faulty: FaultSystem, plain_s: float) -> None:
    with _behind_proxy(faulty) as proxy:
        _assert_shown(faulty, [faulty.post("step")])
        with faulty.injected.lasting("Prefect 5 s slow", may_repeat=False):
            # Half of it each way.
            proxy.slow_down(delay_s=2.5)
            runs = _pair(faulty)
            slowest = _assert_in_time(faulty, runs, plain_s)
            notes = {_note(faulty, run) for run in runs}
            proxy.slow_down()
        _assert_shown(faulty, runs)

    assert notes == {_NOTE}
    _conclude(faulty, "5 s slow", slowest, plain_s)


def _pair(faulty: FaultSystem, *, seconds: float = 0.1) -> list[dict[str, Any]]:
    """Submit a run that the relay publishes, and one that publishers of its project do."""
    step = {"seconds": seconds}
    return [
        faulty.post(("step", step), ("step", step)),
        faulty.post(("led_step", step), ("led_thread_step", step), project="led"),
    ]


def _assert_in_time(faulty: FaultSystem, runs: list[dict[str, Any]], plain_s: float) -> float:
    """Return how long the slowest took."""
    ended = [faulty.wait_status(run, "succeeded", timeout_s=plain_s + _ALLOWED_S + 30) for run in runs]
    slowest: float = max(run["duration_s"] for run in ended)
    assert slowest < plain_s + _ALLOWED_S
    return slowest


def _note(faulty: FaultSystem, run: dict[str, Any]) -> str:
    note: str = wait_until(lambda: faulty.run(run)["prefect"]["note"], timeout_s=60, what="a note about Prefect")
    return note


def _assert_shown(faulty: FaultSystem, runs: list[dict[str, Any]]) -> None:
    """Prefect shows them all once it is back."""
    faulty.system.wait_ready()
    address = f"http://127.0.0.1:{faulty.system.config.prefect_port}/api"

    def is_shown(run: dict[str, Any]) -> bool:
        flow_run = faulty.run(run)["prefect"]["flow_run_id"]
        if flow_run is None:
            return False
        answer = httpx.get(f"{address}/flow_runs/{flow_run}", timeout=30, trust_env=False)
        return bool(answer.json()["state_type"] == "COMPLETED")

    for run in runs:
        wait_until(partial(is_shown, run), timeout_s=180, what=f"run {run['number']} Completed in Prefect")


@contextmanager
def _behind_proxy(faulty: FaultSystem) -> Iterator[Proxy]:
    """Put a proxy between the Task Publisher and Prefect, for as long as this lasts."""
    name = "task-publisher"
    with Proxy(to_port=faulty.system.config.prefect_port) as proxy:
        program = faulty.system.program(name)
        url = f"http://127.0.0.1:{proxy.port}/api"
        faulty.system.add(replace(program, environ={**program.environ, "PREFECT_API_URL": url}))
        faulty.system.stop(name)
        faulty.system.start(name)
        yield proxy
        faulty.system.add(program)
        faulty.system.stop(name)
        faulty.system.start(name)


def _conclude(faulty: FaultSystem, how: str, slowest: float, plain_s: float) -> None:
    more = f"slowest run {slowest:.1f} s, without a fault {plain_s:.1f} s"
    faulty.conclude("23", f"Prefect's server {how}", more=more)
