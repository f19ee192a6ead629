"""Row 4: a worker dies between cancel-ok, `claimed`, its confirm and the ack."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults.records import read_number
from tests.support.faults.system import FaultSystem
from tests.support.folders import ROOT
from tests.support.waiting import wait_until

_FILE = ROOT / "tests" / "faults" / "crashing_worker.py"
_POINTS = ("after cancel-ok", "before claim", "claim on its way", "after confirm", "before ack", "after ack")
#: Of these the Task Publisher has the claim.
_CLAIMED = 3
_LEASED = "SELECT count(*) FROM pipelines_attempt WHERE status = 'running' AND claimed_at IS NOT NULL"


@pytest.mark.parametrize("others", ["there at once", "away until the claims are lost"])
def test_a_worker_may_die_anywhere_in_its_claim(faulty: FaultSystem, tmp_path: Path, others: str) -> None:
    gate = tmp_path / "gate"
    for worker in ("worker-1", "worker-2"):
        faulty.system.stop(worker)
    with _crashing_workers(faulty) as names:
        runs = [faulty.post(("gated", {"gate": str(gate)})) for _ in names]
        # Only then: a task that comes back must not come to another one of them.
        for run in runs:
            faulty.wait_executed(run)
        wait_until(lambda: not any(map(faulty.system.is_running, names)), timeout_s=60, what="the end of all of them")
    for _ in names:
        faulty.injected.note("worker killed")

    if others != "there at once":
        lost = faulty.lost_attempts()
        wait_until(lambda: faulty.lost_attempts() - lost >= _CLAIMED, timeout_s=60, what="lost claims")
        wait_until(lambda: not read_number(faulty.database_url, _LEASED), timeout_s=60, what="no claim left")
    faulty.system.start("worker-1", "worker-2")
    # What came back lies before all that was published since: with the gate shut it would be executed beside that.
    wait_until(lambda: sum(len(faulty.executions(run)) > 1 for run in runs) > 1, timeout_s=60, what="second executions")
    gate.touch()

    for run in runs:
        faulty.wait_status(run, "succeeded")
    executions = [len(faulty.executions(run)) for run in runs]
    more = f"executions of each: {executions}"
    faulty.conclude("4", f"worker killed within its claim, others {others}", injected=len(names), more=more)
    assert max(executions) <= 2


@contextmanager
def _crashing_workers(ours: FaultSystem) -> Iterator[list[str]]:
    """Start one with one slot for each point, so that each gets one task; they are none of the system's afterwards."""
    names = [f"crashing-{number}" for number in range(len(_POINTS))]
    for name, point in zip(names, _POINTS, strict=True):
        environ = {"FAULTS_CRASH": point, "PYTHONPATH": str(ROOT / "src"), "FAULTS_LEDGER": str(ours.ledger.file)}
        ours.system.start_worker(name, _FILE, "--slots", "1", "--name", name, environ=environ)
    try:
        ours.wait_serving(*names)
        yield names
    finally:
        for name in names:
            ours.system.remove(name)
