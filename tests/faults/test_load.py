"""Row 32: 10,000 runs of 3 tasks with 4 workers; FAULTS_RUNS says how many otherwise."""

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.support.faults.system import FaultSystem, body, fault_system
from tests.support.faults.thoroughness import is_full
from tests.support.waiting import wait_until

_RUNS = int(os.environ.get("FAULTS_RUNS", "10000"))
_WORKERS = 4
_LIST_P95_S = 0.3
_MEBIBYTE = 2**20
#: What an allocator may keep for itself, beside what grows with the runs.
_FLAT_MIB = 32

pytestmark = [pytest.mark.skipif(not is_full(), reason="minutes long: make chaos tries it"), pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(tmp_path_factory.mktemp("load"), workers=_WORKERS, slots=1) as ours:
        yield ours


def test_many_runs_end_in_order_while_memory_is_flat_and_the_list_answers(faulty: FaultSystem) -> None:
    with faulty.injected.lasting(f"{_RUNS} runs of 3 tasks", may_repeat=False):
        _submit(faulty)
        _wait_ended(faulty, _RUNS // 5)
        before = _memory(faulty)
        list_s = _list_times(faulty)
        after = _memory(faulty)

    p95 = sorted(list_s)[int(len(list_s) * 0.95)]
    grown = {name: after[name] - before[name] for name in before}
    more = f"list p95 {p95 * 1000:.0f} ms of {len(list_s)} looks, memory grown by {grown} MiB, then {after} MiB"
    found = faulty.conclude("32", f"{_RUNS} runs of 3 tasks, {_WORKERS} workers", more=more, timeout_s=600)
    begun = [run["started_at"] for run in faulty.records().runs.values()]
    assert found.runs == {"succeeded": _RUNS}
    assert found.executions == 3 * _RUNS
    assert all(earlier <= later for earlier, later in itertools.pairwise(begun))
    assert p95 < _LIST_P95_S
    assert max(grown.values()) < _FLAT_MIB


def _submit(faulty: FaultSystem) -> None:
    document = body("step", "step", "step")

    def submit(_: int) -> str:
        answer = faulty.system.api.post("/runs", json=document)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(max_workers=4) as callers:
        faulty.accepted += callers.map(submit, range(_RUNS))


def _wait_ended(faulty: FaultSystem, count: int) -> None:
    wait_until(lambda: _RUNS - faulty.unended() >= count, timeout_s=1800, what=f"{count} runs ended")


def _list_times(faulty: FaultSystem) -> list[float]:
    """Ask for the list until the last run has ended, and return how long each answer took."""
    times: list[float] = []

    def asked() -> bool:
        began = time.monotonic()
        faulty.system.get("/runs")
        times.append(time.monotonic() - began)
        return faulty.unended() == 0 and len(times) >= 20

    wait_until(asked, timeout_s=3600, what="every run at its end")
    return times


def _memory(faulty: FaultSystem) -> dict[str, int]:
    """Return the MiB that each process has, a worker's with its children's."""
    found = {}
    for name in ("web", "task-publisher", *(f"worker-{number}" for number in range(1, _WORKERS + 1))):
        process = psutil.Process(faulty.system.pid(name))
        family = [process, *process.children(recursive=True)]
        found[name] = sum(each.memory_info().rss for each in family) // _MEBIBYTE
    return found
