"""Rows 3 and 28: what a task's code can do to the process that executes it, and to the machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.faults.system import FaultSystem
from tests.support.faults.thoroughness import is_full
from tests.support.waiting import wait_until

_MEBIBYTES = 1024 if is_full() else 64
_WAYS = (
    "abort",
    "segfault",
    "killed as when out of memory",
    "out of memory",
    "os._exit(0)",
    "sys.exit",
    "BaseException",
    "KeyboardInterrupt",
)


def test_whatever_ends_a_childs_process_is_a_failure_with_a_reason(faulty: FaultSystem) -> None:
    workers = [faulty.system.pid(name) for name in ("worker-1", "worker-2")]
    runs = {way: faulty.post(("break_down", {"how": way})) for way in _WAYS}

    for way, run in runs.items():
        faulty.injected.note(way, may_repeat=False)
        task = faulty.wait_status(run, "failed")["tasks"][0]
        assert task["error"]["message"], way
        assert len(task["attempts"]) == 1

    # Whoever signals the whole group, as a terminal does, leaves the end to the supervisor: the task goes on.
    interrupted = faulty.post(("break_down", {"how": "SIGINT to itself"}))
    faulty.injected.note("SIGINT to itself", may_repeat=False)
    faulty.wait_status(interrupted, "succeeded")

    after = [faulty.post(("step", {"n": n})) for n in range(4)]
    faulty.conclude("3", "abort, segfault, out of memory, exits, BaseException, SIGINT in a task")
    assert {faulty.run(run)["status"] for run in after} == {"succeeded"}
    assert [faulty.system.pid(name) for name in ("worker-1", "worker-2")] == workers
    assert faulty.system.is_running("worker-1")
    assert faulty.system.is_running("worker-2")


@pytest.mark.parametrize("how", ["run_timeout", "cancel"])
def test_a_task_that_will_not_end_is_killed_with_all_that_it_started(
    faulty: FaultSystem, tmp_path: Path, how: str
) -> None:
    pids = tmp_path / "pids"
    policy: dict[str, Any] = {"run_timeout": 2.0} if how == "run_timeout" else {}
    run = faulty.post(("spread", {"pids": str(pids)}), **policy)
    family = wait_until(_read(pids), timeout_s=30, what="the task's processes")
    faulty.injected.note(f"an endless task, {how}", may_repeat=False)

    if how == "cancel":
        assert faulty.call("cancel", run).is_success
    faulty.wait_status(run, "failed" if how == "run_timeout" else "cancelled", timeout_s=30)

    wait_until(lambda: not _alive(family), timeout_s=10, what="an end of all that the task started")
    after = faulty.post(("step", {"n": 28}))
    assert faulty.wait_status(after, "succeeded")
    faulty.conclude("28", f"endless loop, SIGTERM ignored, double fork: ended by {how}")


def test_output_without_end_is_capped_and_says_so(faulty: FaultSystem) -> None:
    memory, what = _memory(faulty), f"{_MEBIBYTES} MiB of binary output, closed descriptors"

    run = faulty.post(("pour_out", {"mebibytes": _MEBIBYTES, "closes": True, "n": 1}))
    faulty.injected.note(what, may_repeat=False)

    assert faulty.wait_status(run, "succeeded", timeout_s=600)
    lines = faulty.system.get(f"/runs/{run['id']}/logs", limit=5000)["lines"]
    assert lines
    wait_until(lambda: "the log ends here" in _last_line(faulty, run["id"]), timeout_s=20, what="the log's last line")
    assert _memory(faulty) - memory < 64 * 2**20
    faulty.conclude("28", what)


def _read(file: Path) -> Callable[[], list[int]]:
    return lambda: [int(word) for word in file.read_text().split()] if file.exists() else []


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def _memory(faulty: FaultSystem) -> int:
    """Return what the supervisor with the larger memory has in it."""
    workers = [psutil.Process(faulty.system.pid(name)) for name in ("worker-1", "worker-2")]
    return max(worker.memory_info().rss for worker in workers)


def _last_line(faulty: FaultSystem, run_id: str) -> str:
    after, text = 0, ""
    while True:
        page = faulty.system.get(f"/runs/{run_id}/logs", after=after, limit=5000)
        text = page["lines"][-1]["text"] if page["lines"] else text
        if page["is_last"]:
            return text
        after = page["next_after"]
