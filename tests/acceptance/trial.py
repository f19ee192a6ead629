"""A system with the tests' own projects and two workers of the same names, and what is asked of it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.folders import ROOT
from tests.support.system import System, started
from tests.support.waiting import wait_until

PROJECTS = ROOT / "tests" / "acceptance" / "projects"
_WORKER = PROJECTS / "trial" / "workers" / "trial.py"


class Trial:
    """A running system, its effect ledger, and its two workers `first` and `second`."""

    def __init__(self, system: System, ledger: Path) -> None:
        self.system = system
        self.ledger = ledger
        environ = {
            "TRIAL_LEDGER": str(ledger),
            "TRIAL_TRANSFORMATIONS": str(ROOT / "projects" / "generic_transformations"),
        }
        for name in ("first", "second"):
            system.start_worker(name, _WORKER, "--slots", "2", environ=environ)
        wait_until(self._has_both_workers, timeout_s=60, what="both workers in the catalogue")

    def post(self, *tasks: tuple[str, dict[str, Any]], project: str = "trial", data_url: str = "") -> dict[str, Any]:
        return self.system.post(body(*tasks, project=project, data_url=data_url))

    def executed(self) -> list[str]:
        """The names of the tasks that were executed, in order."""
        return [line.split()[0] for line in self._lines()]

    def executed_by(self) -> Counter[str]:
        """How many tasks each worker executed, by its process."""
        return Counter(line.split()[1] for line in self._lines())

    def forget(self) -> None:
        self.ledger.write_text("")

    def in_prefect(
        self, run: dict[str, Any], *, wanted: str = "COMPLETED", tasks: int | None = None, timeout_s: float = 60
    ) -> dict[str, Any]:
        """Return the run's flow run as Prefect's API shows it, with its task runs, once it is in the wanted state.

        Of a completed one all tasks are waited for; `tasks` says of how many otherwise. Those that a dead Task
        Publisher left behind, Crashed, come on top.
        """

        def shown() -> dict[str, Any] | None:
            found: dict[str, Any] = self.system.get(f"/runs/{run['id']}")
            flow_run_id = found["prefect"]["flow_run_id"]
            if flow_run_id is None:
                return None
            flow_run = self._prefect("GET", f"/flow_runs/{flow_run_id}")
            if flow_run["state_type"] != wanted:
                return None
            by = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
            task_runs = self._prefect("POST", "/task_runs/filter", by)
            # Prefect records task runs a moment after their flow run.
            awaited = tasks if tasks is not None else len(found["tasks"]) if wanted == "COMPLETED" else 0
            if any(each["state"] is None for each in task_runs):
                # Prefect stores a task run first, and its state a moment later.
                return None
            states = [each["state_type"] for each in task_runs if each["state_type"] != "CRASHED"]
            if len(states) < awaited or not {"PENDING", "RUNNING"}.isdisjoint(states):
                return None
            mark = {"flow_runs": {"tags": {"all_": [f"shepherd:{run['id']}"]}}}
            assert [each["id"] for each in self._prefect("POST", "/flow_runs/filter", mark)] == [flow_run_id]
            return {**flow_run, "task_runs": task_runs}

        return wait_until(shown, timeout_s=timeout_s, what=f"the flow run of run {run['number']} in {wanted}") or {}

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """Return the flow runs that Prefect has of a pipeline of this name."""
        found: list[dict[str, Any]] = self._prefect("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [name]}}})
        return found

    def _prefect(self, method: str, path: str, document: Any = None) -> Any:
        address = f"{self.system.environ['PREFECT_API_URL']}{path}"
        answer = httpx.request(method, address, json=document, timeout=30, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def _lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def _has_both_workers(self) -> bool:
        offers = {entry["name"]: entry for entry in self.system.get("/catalogue")}
        return len(offers.get("nap", {}).get("workers", [])) >= 2


@contextmanager
def trial(folder: Path, *, but: tuple[str, ...] = ()) -> Iterator[Trial]:
    environ = {"TRIAL_CALLS": str(folder / "calls")}
    with started(projects=PROJECTS, environ=environ, but=("worker-trial-trial", *but)) as system:
        yield Trial(system, folder / "ledger")


def body(*tasks: tuple[str, dict[str, Any]], project: str = "trial", data_url: str = "") -> dict[str, Any]:
    listed = [{"name": name, "order_no": number, "context": context} for number, (name, context) in enumerate(tasks, 1)]
    return {"pipeline_name": "trial", "data_url": data_url, "project": project, "transformers_list": listed}
