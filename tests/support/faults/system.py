"""A whole system to break: each process by its name, what was injected, what was executed, and the check at the end."""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from shepherd.broker.addresses import broker_addresses, vhost_of
from shepherd.broker.topology import REPLIES, task_queue
from shepherd.site.local.programs import broker_node
from tests.support.faults.checker import Findings, check
from tests.support.faults.injected import Injected
from tests.support.faults.ledger import Ledger
from tests.support.faults.postgres_node import PostgresNode, postgres_node
from tests.support.faults.records import Records, read_records
from tests.support.faults.report import report
from tests.support.faults.submitted import Step, SubmittedRuns, body
from tests.support.folders import ROOT
from tests.support.given_brokers import BrokerUnderTest
from tests.support.proxy import Proxy
from tests.support.system import System, started
from tests.support.waiting import wait_until

__all__ = ["FaultSystem", "Step", "answers_amqp", "body", "fault_system"]

PROJECTS = ROOT / "tests" / "faults" / "projects"
#: With an underline, so that no system starts it unasked.
WORKER_FILE = PROJECTS / "plain" / "workers" / "_plain.py"
_EMPTY_S = 60.0
_UNACKED = (
    '{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)), '
    "{{ok, {{_, Count}}, _}} = ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_checked_out/1), "
    "Count."
)


class FaultSystem(SubmittedRuns):
    """Use `fault_system` to get one that is up."""

    def __init__(self, system: System, ledger: Ledger, postgres: PostgresNode | None, broker: BrokerUnderTest) -> None:
        super().__init__(system, ledger)
        self.postgres = postgres
        self.injected = Injected()
        self.broker = broker
        #: False where a test has put a process's clock forward or back.
        self.has_one_clock = True
        self._since = 0
        self._told: set[str] = set()
        self._answered_by_hand: set[str] = set()

    # What happens to processes.

    def kill(self, name: str, *, may_repeat: bool = True) -> None:
        self.injected.note(f"{_kind(name)} killed", may_repeat=may_repeat)
        self.system.kill(name)

    def wait_broker(self, *, timeout_s: float = 90.0) -> None:
        """Return when the broker, started again, answers."""
        wait_until(lambda: answers_amqp(self.system.config.broker_port), timeout_s=timeout_s, what="the broker")

    def restart(self, name: str) -> None:
        self.system.start(name)

    @contextmanager
    def kept_running(self, *names: str) -> Iterator[None]:
        """Start these again whenever they have ended, as a server's supervisor does."""
        over = threading.Event()

        def look() -> None:
            alive_at = dict.fromkeys(names, time.time())
            while not over.wait(0.2):
                for name in names:
                    now = time.time()
                    with suppress(KeyError):
                        if not self.system.is_running(name):
                            # It ended at some moment since it was last seen alive.
                            self.injected.note(f"{_kind(name)} ended").began_at = alive_at[name]
                        self.system.start(name)
                    alive_at[name] = now

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
        parts = urlsplit(self.broker.url)
        with Proxy(to_host=parts.hostname or "", to_port=parts.port or 5672) as proxy:
            program = self.system.program(name)
            url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
            self.system.add(replace(program, environ={**program.environ, "SHEPHERD_BROKER_URL": url}))
            if self.system.is_running(name):
                self.system.stop(name)
            self.system.start(name)
            yield proxy
            self.system.add(program)
            self.system.stop(name)
            self.system.start(name)

    def wait_serving(self, *workers: str, timeout_s: float = 180.0) -> None:
        """Return when these workers are in the catalogue."""

        def serving() -> bool:
            entries = {entry["name"]: entry for entry in self.system.get("/catalogue")}
            shown = json.dumps(entries.get("step", {}).get("workers", []))
            return all(re.search(rf"\b{re.escape(worker)}@", shown) for worker in workers)

        wait_until(serving, timeout_s=timeout_s, what=f"{workers} in the catalogue")

    def wait_claimed(self, run: Mapping[str, Any], *, no: int = 1, timeout_s: float = 60.0) -> None:
        """Return when a worker has taken that attempt over, and the broker has none of its name unacked any more.

        Between the two both are responsible: what dies then may cost an execution more (row 4).
        """
        super().wait_claimed(run, no=no, timeout_s=timeout_s)
        names = [task["name"] for task in self.run(run)["tasks"] if task["status"] == "running"]
        wait_until(lambda: not sum(map(self.unacked, names)), timeout_s=timeout_s, what=f"the acks of {names}")

    def unacked(self, name: str) -> int:
        """Return how many deliveries of a task's name are unacked: asked of the queue, whose counters come late."""
        vhost = vhost_of(broker_addresses(self.broker.url)[0])
        told = self.broker.ctl("eval", _UNACKED.format(vhost=vhost, queue=task_queue(name)))
        return int(told)

    # What is so at the end.

    def records(self) -> Records:
        return read_records(self.database_url)

    def rest(self, *, timeout_s: float = 120.0) -> None:
        """Return when every run has ended, and nothing waits on the broker or is unacked there."""
        try:
            wait_until(lambda: self.unended() == 0, timeout_s=timeout_s, what="every run at its end")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._unended_runs()}") from None
        try:
            wait_until(lambda: not self.queued(), timeout_s=_EMPTY_S, what="empty queues")
        except TimeoutError as error:
            columns = ("name", "messages_ready", "messages_unacknowledged", "consumers")
            raise TimeoutError(f"{error}: {self.queued()}\n{self.broker.ctl('list_queues', *columns)}") from None

    def _unended_runs(self) -> str:
        return ", ".join(
            f"{run['number']} {run['status']}"
            for run in self.records().runs.values()
            if run["status"] not in {"succeeded", "failed", "cancelled"}
        )

    def queued(self) -> dict[str, int]:
        """Return how many messages lie in each queue that must be empty at rest, ready or unacked; none that are."""
        lines = self.broker.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        # A node of a cluster that is away doesn't say: that isn't empty.
        counts = {name: int(count or -1) for name, _, count in (line.partition("\t") for line in lines)}
        return {name: count for name, count in counts.items() if count and name.startswith((REPLIES, "shepherd.task."))}

    def findings(self) -> Findings:
        return check(
            self.records(),
            self.ledger.executions(),
            self.injected.windows,
            accepted=dict.fromkeys(self.accepted),
            answered_by_hand=self._answered_by_hand,
            has_one_clock=self.has_one_clock,
        )

    def conclude(
        self,
        row: str,
        fault: str,
        *,
        injected: int = 0,
        more: str = "",
        timeout_s: float = 120.0,
        but: tuple[str, ...] = (),
    ) -> Findings:
        """Wait for rest, check everything, write the row's line, and fail with all that isn't as it must be.

        Tasks named in `but` were answered by the test itself: they need no execution.
        """
        self._answered_by_hand |= set(but)
        self.rest(timeout_s=timeout_s)
        found = self.findings()
        found.drop(self._told)
        self._told |= set(found.all())
        report(row, fault, injected=injected or len(self.injected) - self._since, found=found, more=more)
        assert not found.all(), found.all()
        return found

    def forget(self) -> None:
        """Count faults anew; what is in the database and in the ledger stays, and stays checked."""
        self._since = len(self.injected)


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
    broker: BrokerUnderTest | None = None,
    places: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[FaultSystem]:
    """Start a broker, a database, a web process, and as many Task Publishers and workers, of a new folder's own.

    A `broker` that runs already is used in place of a new one; with several nodes, `environ` names their addresses.
    Workers are called `worker-1` and so on, Task Publishers `task-publisher`, `task-publisher-2`.
    """
    with ExitStack() as at_end:
        own = dict(environ or {})
        node = at_end.enter_context(postgres_node()) if is_postgres else None
        if node is not None:
            own["SHEPHERD_DATABASE_URL"] = node.server.create_database("shepherd")
        if not has_prefect:
            own["SHEPHERD_PREFECT"] = "off"
        if broker is not None:
            own.setdefault("SHEPHERD_BROKER_URL", broker.url)
        system = at_end.enter_context(started(projects=PROJECTS, environ=own, places=places))
        ours = FaultSystem(system, Ledger(folder / "ledger"), node, broker or broker_node(system.config))
        for number in range(2, publishers + 1):
            ours.add_publisher(f"task-publisher-{number}")
            system.start(f"task-publisher-{number}")
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        for name in names:
            ours.start_worker(name, slots=slots)
        ours.wait_serving(*names)
        yield ours


def answers_amqp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
    except OSError:
        return False


def say(text: str) -> None:
    """Tell whoever watches a long run."""
    sys.stderr.write(f"{text}\n")
