"""Runs as callers submit them, and what becomes of them: asked from outside, waited for with a deadline."""

from collections.abc import Mapping
from typing import Any

import httpx

from tests.support.faults.ledger import Execution, Ledger
from tests.support.faults.records import read_number
from tests.support.system import System
from tests.support.waiting import wait_until

_UNENDED = "SELECT count(*) FROM pipelines_run WHERE status NOT IN ('succeeded', 'failed', 'cancelled')"

Step = tuple[str, Mapping[str, Any]]


class SubmittedRuns:
    """Of one system. Runs are named by what `post` returned."""

    def __init__(self, system: System, ledger: Ledger) -> None:
        self.system = system
        self.ledger = ledger
        #: Ids of the runs that callers were promised.
        self.accepted: list[str] = []

    @property
    def database_url(self) -> str:
        return self.system.config.database_url

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

    def wait_status(self, run: Mapping[str, Any], *statuses: str, timeout_s: float = 180.0) -> dict[str, Any]:
        def looked() -> dict[str, Any] | None:
            shown = self.run(run)
            return shown if shown["status"] in statuses else None

        found = wait_until(looked, timeout_s=timeout_s, what=f"run {run['number']} in {statuses}")
        assert found is not None
        return found

    def wait_attempt(self, run: Mapping[str, Any], status: str, *, no: int = 1, timeout_s: float = 180.0) -> None:
        """Return when some task of the run has an attempt of that number in that status."""

        def looked() -> bool:
            attempts = [attempt for task in self.run(run)["tasks"] for attempt in task["attempts"]]
            return any(each["attempt"] == no and each["status"] == status for each in attempts)

        wait_until(looked, timeout_s=timeout_s, what=f"attempt {no} of run {run['number']} {status}")

    def executions(self, run: Mapping[str, Any], *, of: int = 0) -> list[Execution]:
        """Return how one of the run's tasks, by its place, was executed so far."""
        return self.ledger.of(self.run(run)["tasks"][of]["id"])

    def wait_executed(
        self, run: Mapping[str, Any], count: int = 1, *, of: int = 0, timeout_s: float = 180.0
    ) -> list[Execution]:
        """Return when one of the run's tasks was begun so often."""
        task = self.run(run)["tasks"][of]["id"]

        def begun() -> list[Execution]:
            found = self.ledger.of(task)
            return found if len(found) >= count else []

        return wait_until(begun, timeout_s=timeout_s, what=f"execution {count} of run {run['number']}")

    def wait_claimed(self, run: Mapping[str, Any], *, no: int = 1, timeout_s: float = 180.0) -> None:
        """Return when a worker has taken some attempt of that number over from the broker."""
        query = f"""SELECT count(*) FROM pipelines_attempt a JOIN pipelines_task t ON t.number = a.task_id
            WHERE t.run_id = {int(run["number"])} AND a.attempt_no = {no} AND a.claimed_at IS NOT NULL"""
        wait_until(
            lambda: read_number(self.database_url, query),
            timeout_s=timeout_s,
            what=f"attempt {no} of run {run['number']} claimed",
        )

    def wait_ended_execution(self, execution: Execution, *, timeout_s: float = 180.0) -> None:
        """Return when the task's code has come to its end in this attempt."""
        of = (execution.task, execution.attempt)
        wait_until(lambda: of in self.ledger.ended(), timeout_s=timeout_s, what=f"the end of {execution.name}")

    def worker_of(self, execution: Execution) -> str:
        """Return the name of the worker that executes this, which has to live."""
        return next(
            name
            for name in self.system.names
            if self.system.is_running(name) and self.system.pid(name) == execution.worker
        )

    def attempts(self, run: Mapping[str, Any], *, of: int = 0) -> list[str]:
        """Return the statuses of the attempts at one of the run's tasks."""
        return [attempt["status"] for attempt in self.run(run)["tasks"][of]["attempts"]]

    def lost_attempts(self) -> int:
        return read_number(self.database_url, "SELECT count(*) FROM pipelines_attempt WHERE status = 'lost'")

    def wait_executing(self, count: int = 1, *, timeout_s: float = 180.0) -> None:
        """Return when so many executions have begun, from the beginning on."""
        wait_until(
            lambda: len(self.ledger.executions()) >= count, timeout_s=timeout_s, what=f"{count} executions begun"
        )

    def unended(self) -> int:
        return read_number(self.database_url, _UNENDED)


def body(*steps: Step | str, project: str = "plain", **policy: Any) -> dict[str, Any]:
    pairs: list[Step] = [(step, {}) if isinstance(step, str) else step for step in steps]
    tasks = [
        {"name": name, "order_no": order, "context": context, **policy}
        for order, (name, context) in enumerate(pairs, 1)
    ]
    return {"pipeline_name": "fault", "data_url": "", "project": project, "transformers_list": tasks}
