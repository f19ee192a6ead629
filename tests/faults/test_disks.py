"""Rows 21 and 22: no room for the database, the spool, the store and the logs; no writing; no descriptors left."""

import hashlib
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.faults.disk import FailingDisk, SmallDisk, failing_disk, small_disk
from tests.support.faults.system import FaultSystem, body, fault_system
from tests.support.waiting import wait_until

_KIBIBYTES = 600
_SAID_WITHOUT_DESCRIPTORS = {
    "web": "Too many open files",
    "task-publisher": "unable to open database file",
    "worker-1": "Too many open files",
}


class Disks:
    """Of one system: its store, its worker's spool and its logs lie on small ones, its database on one of each kind."""

    def __init__(self, at_end: ExitStack, folder: Path) -> None:
        self.database = at_end.enter_context(small_disk(folder / "database", mebibytes=8))
        self.store = at_end.enter_context(small_disk(folder / "store", mebibytes=8))
        self.spool = at_end.enter_context(small_disk(folder / "spool", mebibytes=2))


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    with ExitStack() as at_end:
        yield Disks(at_end, tmp_path_factory.mktemp("disks"))


@pytest.fixture(scope="module")
def shared_system(disks: Disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with _system(tmp_path_factory.mktemp("on-disks"), database=disks.database.folder, disks=disks) as ours:
        yield ours


@contextmanager
def _system(folder: Path, *, database: Path, disks: Disks) -> Iterator[FaultSystem]:
    environ = {
        "SHEPHERD_DATABASE_URL": f"sqlite:///{database}/shepherd.sqlite3",
        "SHEPHERD_STORE": disks.store.folder.as_uri(),
    }
    with fault_system(folder, workers=0, environ=environ) as ours:
        ours.start_worker("worker-1", environ={"SHEPHERD_SPOOL": str(disks.spool.folder)})
        ours.wait_serving("worker-1")
        yield ours


def test_without_room_for_the_database_submissions_are_refused_and_nothing_is_lost(
    faulty: FaultSystem, disks: Disks
) -> None:
    runs = [faulty.post(("step", {"n": n, "seconds": 0.2}), "step") for n in range(10)]
    faulty.wait_executed(runs[0])

    with faulty.injected.lasting("database without room"):
        refusal = _wait_refusal(faulty, disks.database)
        disks.database.make_room()
        _accept_again(faulty)

    assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE, refusal.text
    assert "disk is full" in faulty.system.log("web")
    for run in runs:
        faulty.wait_status(run, "succeeded")
    assert _integrity(faulty) == "ok"
    faulty.conclude("21", "no room for the database", more=f"POST: 503, {refusal.json()['error']['message']}")


def test_without_room_in_the_store_an_attempt_fails_with_the_reason(faulty: FaultSystem, disks: Disks) -> None:
    before = faulty.post(("large", {"kibibytes": _KIBIBYTES}), "weigh")
    faulty.wait_status(before, "succeeded")

    with faulty.injected.lasting("store without room"):
        disks.store.fill()
        once = faulty.post(("large", {"kibibytes": _KIBIBYTES}), "weigh")
        patient = faulty.post(("large", {"kibibytes": _KIBIBYTES}), "weigh", retries=50, backoff=0.2)
        error = faulty.wait_status(once, "failed")["tasks"][0]["error"]
        faulty.wait_attempt(patient, "failed")
        disks.store.make_room()

    assert error["code"] == "store_unavailable"
    assert "No space left on device" in error["message"]
    faulty.wait_status(patient, "succeeded")
    assert _broken_objects(faulty, disks.store.folder) == []
    faulty.conclude("21", "no room in the store", more=error["message"][-24:])


def test_without_room_in_the_spool_a_worker_takes_nothing_new_and_ends_what_it_has(
    faulty: FaultSystem, disks: Disks, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    claimed = faulty.post(("gated", {"gate": str(gate)}))
    faulty.wait_claimed(claimed)

    with faulty.injected.lasting("spool without room", may_repeat=False):
        disks.spool.fill()
        _wait_resting(faulty, "No space left")
        waits = faulty.post("step")
        gate.touch()
        faulty.wait_status(claimed, "succeeded")
        assert faulty.executions(waits) == []
        disks.spool.make_room()

    faulty.wait_status(waits, "succeeded")
    faulty.conclude("21", "no room in the spool")


def test_without_room_for_logs_work_goes_on(faulty: FaultSystem) -> None:
    names = ("worker-1", "task-publisher", "web")
    with small_disk(faulty.system.config.home / "log", mebibytes=1) as logs:
        _restart(faulty, *names)
        with faulty.injected.lasting("logs without room", may_repeat=False):
            logs.fill()
            runs = [faulty.post(("break_down", {"how": "abort"})) for _ in range(3)]
            for run in runs:
                faulty.wait_status(run, "failed")
            good = faulty.post("step", "step")
            faulty.wait_status(good, "succeeded")
            logs.make_room()
        again = faulty.post(("break_down", {"how": "abort"}))
        faulty.wait_status(again, "failed")
        _wait_said(faulty, "task.broken")
        for name in names:
            assert faulty.system.is_running(name)
    _restart(faulty, *names)
    faulty.conclude("21", "no room for logs")


def test_a_store_and_a_spool_that_are_read_only_are_named_until_they_arent(faulty: FaultSystem, disks: Disks) -> None:
    with faulty.injected.lasting("store read-only"), disks.store.read_only():
        once = faulty.post(("large", {"kibibytes": _KIBIBYTES}))
        patient = faulty.post(("large", {"kibibytes": _KIBIBYTES}), "weigh", retries=50, backoff=0.2)
        error = faulty.wait_status(once, "failed")["tasks"][0]["error"]
        faulty.wait_attempt(patient, "failed")
    with faulty.injected.lasting("spool read-only", may_repeat=False), disks.spool.read_only():
        _wait_resting(faulty, "Read-only file system")
        waits = faulty.post("step")

    assert error["code"] == "store_unavailable"
    assert "Read-only file system" in error["message"]
    for run in (patient, waits):
        faulty.wait_status(run, "succeeded")
    assert _broken_objects(faulty, disks.store.folder) == []
    faulty.conclude("22", "store and spool read-only", more=error["message"][-24:])


def test_a_database_that_turns_read_only_accepts_nothing_and_keeps_what_it_has(disks: Disks, tmp_path: Path) -> None:
    with (
        failing_disk(tmp_path / "disk", mebibytes=64) as disk,
        _system(tmp_path, database=disk.folder, disks=disks) as ours,
    ):
        runs = [ours.post(("step", {"n": n, "seconds": 0.2}), "step") for n in range(10)]
        ours.wait_executed(runs[0])

        with ours.injected.lasting("database read-only"):
            disk.fail()
            refusal = _wait_refusal(ours)
            _repair(ours, disk)
            _accept_again(ours)

        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE, refusal.text
        for run in runs:
            ours.wait_status(run, "succeeded")
        assert _integrity(ours) == "ok"
        ours.conclude("22", "database read-only", more="POST: 503")
        for name in ("web", "task-publisher"):
            ours.system.stop(name)


@pytest.mark.parametrize("name", list(_SAID_WITHOUT_DESCRIPTORS))
def test_without_descriptors_a_process_says_so_and_goes_on_when_it_has_some(faulty: FaultSystem, name: str) -> None:
    runs = [faulty.post(("step", {"n": n, "seconds": 0.2}), "step") for n in range(6)]
    faulty.wait_executed(runs[0])
    pid = faulty.system.pid(name)

    with faulty.injected.lasting(f"{name} without descriptors"), _no_descriptors(pid):
        if name == "web":
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{faulty.system.config.page_url}/healthz", timeout=2.0, trust_env=False)
        _wait_said(faulty, _SAID_WITHOUT_DESCRIPTORS[name], by=name)

    for run in [*runs, faulty.post("step")]:
        faulty.wait_status(run, "succeeded")
    assert faulty.system.pid(name) == pid
    faulty.conclude("22", f"no descriptors left for {name}", more=f"it says: {_SAID_WITHOUT_DESCRIPTORS[name]}")


def test_64_descriptors_are_enough_for_a_worker_and_a_task_publisher(faulty: FaultSystem) -> None:
    names = ("worker-1", "task-publisher")
    for name in names:
        program = faulty.system.program(name)
        faulty.system.add(replace(program, command=("prlimit", "--nofile=64", "--", *program.command)))
        _restart(faulty, name)
        faulty.system.add(program)
        faulty.injected.note(f"ulimit -n 64 for {name}", may_repeat=False)

    runs = [faulty.post(("step", {"n": n}), "step") for n in range(20)]

    for run in runs:
        faulty.wait_status(run, "succeeded")
    most = {name: psutil.Process(faulty.system.pid(name)).num_fds() for name in names}
    _restart(faulty, *names)
    faulty.conclude("22", "ulimit -n 64 for worker and Task Publisher", more=f"descriptors {most}")


def _refusal(ours: FaultSystem, disk: SmallDisk | None = None) -> httpx.Response | None:
    """Submit something, and return the answer if it wasn't accepted."""
    if disk is not None:
        disk.fill()
    answer = ours.system.api.post("/runs", json=body(("step", {"text": "x" * 10_000})))
    if answer.status_code != httpx.codes.ACCEPTED:
        return answer
    ours.accepted.append(answer.json()["id"])
    return None


def _wait_refusal(ours: FaultSystem, disk: SmallDisk | None = None) -> httpx.Response:
    refusal = wait_until(lambda: _refusal(ours, disk), timeout_s=120, what="a refused submission")
    assert refusal is not None
    return refusal


def _accept_again(ours: FaultSystem) -> None:
    wait_until(lambda: _refusal(ours) is None, timeout_s=120, what="a submission accepted again")


def _integrity(ours: FaultSystem) -> str:
    with closing(sqlite3.connect(ours.database_url.removeprefix("sqlite:///"))) as connection:
        found: tuple[str] = connection.execute("PRAGMA integrity_check").fetchone()
        return found[0]


def _broken_objects(ours: FaultSystem, store: Path) -> list[str]:
    """Return what lies half written in the store, and what was recorded and isn't there as it was claimed."""
    results = [task["result"] for task in ours.records().tasks.values() if task["result"]]
    claims: list[dict[str, Any]] = [result for result in results if "uri" in result]
    broken = [str(path) for path in store.rglob("*.part")]
    for claim in claims:
        path = Path(httpx.URL(claim["uri"]).path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != claim["sha256"]:
            broken.append(claim["uri"])
    return broken


def _wait_resting(ours: FaultSystem, why: str) -> None:
    """Return when the worker has said why it takes nothing, and takes nothing."""
    _wait_said(ours, "spool.refuses", why)

    def resting() -> bool:
        entries = {entry["name"]: entry for entry in ours.system.get("/catalogue")}
        return not any(worker["free_slots"] for worker in entries["step"]["workers"])

    wait_until(resting, timeout_s=120, what="a worker without a free slot")


def _wait_said(ours: FaultSystem, *words: str, by: str = "worker-1") -> None:
    """Return when a line of a process's log has all these words."""

    def said() -> bool:
        return any(all(word in line for word in words) for line in ours.system.log(by).splitlines())

    wait_until(said, timeout_s=120, what=f"{words} in the log of {by}")


def _restart(ours: FaultSystem, *names: str) -> None:
    for name in names:
        ours.system.stop(name)
        ours.system.start(name)
    ours.system.wait_ready()
    ours.wait_serving("worker-1")


def _repair(ours: FaultSystem, disk: FailingDisk) -> None:
    """As an operator does: stop what uses it, check it by mounting it again, start."""
    for name in ("web", "task-publisher"):
        ours.system.stop(name)
    disk.unmount()
    disk.mount()
    ours.system.start()
    ours.system.wait_ready()


@contextmanager
def _no_descriptors(pid: int) -> Iterator[None]:
    """Let a process open nothing more; what it has open stays so."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
