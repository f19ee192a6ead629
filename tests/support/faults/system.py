"""A whole system to break: each process by its name, what was injected, what was executed, and the check at the end."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from shepherd.broker.topology import REPLIES
from shepherd.site.local.programs import broker_node
from tests.support.faults.checker import Findings, check
from tests.support.faults.injected import Injected
from tests.support.faults.ledger import Ledger
from tests.support.faults.postgres_node import PostgresNode, postgres_node
from tests.support.faults.records import Records, read_number, read_records
from tests.support.faults.report import report
from tests.support.folders import ROOT
from tests.support.proxy import Proxy
from tests.support.system import System, started
from tests.support.waiting import wait_until

PROJECTS = ROOT / "tests" / "faults" / "projects"
#: With an underline, so that no system starts it unasked.
WORKER_FILE = PROJECTS / "plain" / "workers" / "_plain.py"
_UNENDED = "SELECT count(*) FROM pipelines_run WHERE status NOT IN ('succeeded', 'failed', 'cancelled')"
_EMPTY_S = 60.0

Step = tuple[str, Mapping[str, Any]]


class FaultSystem:
    """Use `fault_system` to get one that is up."""

    def __init__(self, system: System, ledger: Ledger, postgres: PostgresNode | None) -> None:
        self.system = system
        self.ledger = ledger
        self.postgres = postgres
        self.injected = Injected()
        #: Ids of the runs that callers were promised.
        self.accepted: list[str] = []
        self.broker = broker_node(system.config)
        self._since = 0

    @property
    def database_url(self) -> str:
        return self.system.config.database_url

    # What callers do.

    def post(self, *steps: Step | str, project: str = "plain", key: str = "", **policy: Any) -> dict[str, Any]:
        """Submit a pipeline; `policy` holds for each of its tasks."""
        run = self.system.post(body(*steps, project=project, **policy), **({"Idempotency-Key": key} if key else {}))
        self.accepted.append(run["id"])
        return run

    def run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = self.system.get(f"/runs/{run['id']}")
        return shown

    def call(self, verb: str, run: Mapping[str, Any], document: Any = None) -> httpx.Response:
        """POST to one of a run's handles, such as `cancel`."""
        return self.system.api.post(f"/runs/{run['id']}/{verb}", json=document)

    def wait_status(self, run: Mapping[str, Any], *statuses: str, timeout_s: float = 60.0) -> dict[str, Any]:
        def looked() -> dict[str, Any] | None:
            shown = self.run(run)
            return shown if shown["status"] in statuses else None

        found = wait_until(looked, timeout_s=timeout_s, what=f"run {run['number']} in {statuses}")
        assert found is not None
        return found

    def wait_attempt(self, run: Mapping[str, Any], status: str, *, no: int = 1, timeout_s: float = 60.0) -> None:
        """Return when some task of the run has an attempt of that number in that status."""

        def looked() -> bool:
            attempts = [attempt for task in self.run(run)["tasks"] for attempt in task["attempts"]]
            return any(each["attempt"] == no and each["status"] == status for each in attempts)

        wait_until(looked, timeout_s=timeout_s, what=f"attempt {no} of run {run['number']} {status}")

    def wait_executing(self, count: int = 1, *, timeout_s: float = 60.0) -> None:
        """Return when so many executions have begun, from the beginning on."""
        wait_until(
            lambda: len(self.ledger.executions()) >= count, timeout_s=timeout_s, what=f"{count} executions begun"
        )

    def unended(self) -> int:
        return read_number(self.database_url, _UNENDED)

    # What happens to processes.

    def kill(self, name: str, *, may_repeat: bool = True) -> None:
        self.injected.note(f"{_kind(name)} killed", may_repeat=may_repeat)
        self.system.kill(name)

    def restart(self, name: str) -> None:
        self.system.start(name)

    @contextmanager
    def kept_running(self, *names: str) -> Iterator[None]:
        """Start these again whenever they have ended, as a server's supervisor does."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.2):
                for name in names:
                    with suppress(KeyError):
                        if not self.system.is_running(name):
                            self.injected.note(f"{_kind(name)} ended")
                        self.system.start(name)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def children(self, name: str) -> list[psutil.Process]:
        """Return the processes that a worker executes tasks in."""
        return psutil.Process(self.system.pid(name)).children()

    def start_worker(self, name: str, *, slots: int = 2, environ: Mapping[str, str] | None = None) -> None:
        own = {"FAULTS_LEDGER": str(self.ledger.file), **(environ or {})}
        self.system.start_worker(name, WORKER_FILE, "--slots", str(slots), "--name", name, environ=own)

    def add_publisher(self, name: str, *, environ: Mapping[str, str] | None = None) -> None:
        program = self.system.program("task-publisher")
        self.system.add(replace(program, name=name, environ={**program.environ, **(environ or {})}))

    @contextmanager
    def behind_proxy(self, name: str) -> Iterator[Proxy]:
        """Put a proxy between the broker and a process, which is to be started anew for it."""
        with Proxy(to_port=self.system.config.broker_port) as proxy:
            program = self.system.program(name)
            url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
            self.system.add(replace(program, environ={**program.environ, "SHEPHERD_BROKER_URL": url}))
            if self.system.is_running(name):
                self.system.stop(name)
            self.system.start(name)
            yield proxy
            self.system.add(program)
            self.system.stop(name)
            self.system.start(name)

    def wait_serving(self, *workers: str, timeout_s: float = 60.0) -> None:
        """Return when these workers are in the catalogue."""

        def serving() -> bool:
            entries = {entry["name"]: entry for entry in self.system.get("/catalogue")}
            shown = json.dumps(entries.get("step", {}).get("workers", []))
            return all(re.search(rf"\b{re.escape(worker)}@", shown) for worker in workers)

        wait_until(serving, timeout_s=timeout_s, what=f"{workers} in the catalogue")

    # What is so at the end.

    def records(self) -> Records:
        return read_records(self.database_url)

    def rest(self, *, timeout_s: float = 120.0) -> None:
        """Return when every run has ended, and nothing waits on the broker or is unacked there."""
        wait_until(
            lambda: self.unended() == 0, timeout_s=timeout_s, what=f"every run at its end ({self._unended_runs()})"
        )
        wait_until(lambda: not self.queued(), timeout_s=_EMPTY_S, what="empty queues")

    def _unended_runs(self) -> str:
        return ", ".join(
            f"{run['number']} {run['status']}"
            for run in self.records().runs.values()
            if run["status"] not in {"succeeded", "failed", "cancelled"}
        )

    def queued(self) -> dict[str, int]:
        """Return how many messages lie in each queue that must be empty at rest, ready or unacked; none that are."""
        lines = self.broker.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        counts = {name: int(count) for name, count in (line.split("\t") for line in lines)}
        return {name: count for name, count in counts.items() if count and name.startswith((REPLIES, "shepherd.task."))}

    def findings(self) -> Findings:
        return check(
            self.records(), self.ledger.executions(), self.injected.windows, accepted=dict.fromkeys(self.accepted)
        )

    def conclude(
        self, row: str, fault: str, *, injected: int = 0, more: str = "", timeout_s: float = 120.0
    ) -> Findings:
        """Wait for rest, check everything, write the row's line, and fail with all that isn't as it must be."""
        self.rest(timeout_s=timeout_s)
        found = self.findings()
        report(row, fault, injected=injected or len(self.injected) - self._since, found=found, more=more)
        assert found.all() == []
        return found

    def forget(self) -> None:
        """Count faults anew; what is in the database and in the ledger stays, and stays checked."""
        self._since = len(self.injected)


def body(*steps: Step | str, project: str = "plain", **policy: Any) -> dict[str, Any]:
    pairs: list[Step] = [(step, {}) if isinstance(step, str) else step for step in steps]
    tasks = [
        {"name": name, "order_no": order, "context": context, **policy}
        for order, (name, context) in enumerate(pairs, 1)
    ]
    return {"pipeline_name": "fault", "data_url": "", "project": project, "transformers_list": tasks}


def _kind(name: str) -> str:
    """Return a process's kind: `worker-2` is a worker."""
    return re.sub(r"-\d+$", "", name)


@contextmanager
def fault_system(
    folder: Path,
    *,
    is_postgres: bool = False,
    publishers: int = 1,
    workers: int = 1,
    slots: int = 2,
    has_prefect: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Iterator[FaultSystem]:
    """Start a broker, a database, a web process, and as many Task Publishers and workers, of a new folder's own.

    Workers are called `worker-1` and so on, Task Publishers `task-publisher`, `task-publisher-2`.
    """
    with ExitStack() as at_end:
        own = dict(environ or {})
        node = at_end.enter_context(postgres_node()) if is_postgres else None
        if node is not None:
            own["SHEPHERD_DATABASE_URL"] = node.server.create_database("shepherd")
        if not has_prefect:
            own["SHEPHERD_PREFECT"] = "off"
        system = at_end.enter_context(started(projects=PROJECTS, environ=own))
        ours = FaultSystem(system, Ledger(folder / "ledger"), node)
        for number in range(2, publishers + 1):
            ours.add_publisher(f"task-publisher-{number}")
            system.start(f"task-publisher-{number}")
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        for name in names:
            ours.start_worker(name, slots=slots)
        ours.wait_serving(*names)
        yield ours


Starter = Callable[..., FaultSystem]


def say(text: str) -> None:
    """Tell whoever watches a long run."""
    sys.stderr.write(f"{text}\n")
