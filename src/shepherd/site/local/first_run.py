"""The first pipeline as the terminal shows it: what each task did, when it did it, and the result."""

import threading
import time
from datetime import datetime
from typing import Any, Final

import httpx
import polars as pl
from rich.console import Console
from rich.table import Table

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from shepherd.site.local import client as api
from shepherd.site.local.pipeline import body
from shepherd.site.local.system import LocalSystem
from shepherd.store import open_store
from shepherd.wire.value import ClaimCheck, Value, parse_value

_POLL_S: Final = 0.5
#: Of a run that takes seconds; past this something is broken that its page and the logs explain.
_LIMIT_S: Final = 150.0
_FIRST_ROWS: Final = 8
_FRAME: Final = "application/vnd.apache.parquet"


def show_first_run(system: LocalSystem, *, data_url: str, console: Console) -> bool:
    """Submit the pipeline, say what happens until it has ended, and return whether it succeeded."""
    with api.api_client(system) as client:
        run = api.submit(client, body(data_url))
        console.print(f"Run {run['number']} accepted: {system.config.page_url}/runs/{run['number']}/")
        run = _follow(client, run["id"], console=console)
    console.print(_table(run, system))
    if run["status"] != RunStatus.SUCCEEDED:
        console.print(f"The run is {run['status']}; the logs are in {system.config.home / 'log'}", style="bold red")
        return False
    console.print(_first_rows(run, system))
    return True


def _follow(client: httpx.Client, run_id: str, *, console: Console) -> dict[str, Any]:
    deadline = time.monotonic() + _LIMIT_S
    said: set[str] = set()
    reason: str | None = None
    while True:
        run = api.read_run(client, run_id)
        # A reason is worth a line when a second look still finds it.
        waiting = [run["reason"]] if run["reason"] and run["reason"] == reason else []
        for line in [*_ended_tasks(run), *waiting]:
            if line not in said:
                said.add(line)
                console.print(f"  {line}", highlight=False, markup=False)
        if run["status"] in ENDED_RUN or time.monotonic() > deadline:
            return run
        reason = run["reason"]
        threading.Event().wait(_POLL_S)


def _ended_tasks(run: dict[str, Any]) -> list[str]:
    return [
        f"{task['order_no']}  {task['name']:<16}  {task['status']:<9}  {_duration(task)}"
        for task in run["tasks"]
        if task["status"] in {TaskStatus.SUCCEEDED, TaskStatus.FAILED}
    ]


def _table(run: dict[str, Any], system: LocalSystem) -> Table:
    table = Table("", "task", "status", "took", "rows", "columns", title=f"{run['pipeline_name']}: {run['status']}")
    for task in run["tasks"]:
        table.add_row(str(task["order_no"]), task["name"], task["status"], _duration(task), *_shape(task, system))
    return table


def _duration(task: dict[str, Any]) -> str:
    if not task["finished_at"]:
        return ""
    begin = datetime.fromisoformat(task["started_at"] or task["published_at"])
    return f"{(datetime.fromisoformat(task['finished_at']) - begin).total_seconds():.2f} s"


def _shape(task: dict[str, Any], system: LocalSystem) -> tuple[str, str]:
    frame = _frame(task, system)
    if frame is None:
        return "", ""
    return f"{frame.select(pl.len()).collect().item():,}", str(len(frame.collect_schema()))


def _first_rows(run: dict[str, Any], system: LocalSystem) -> Table:
    frame = _frame(run["tasks"][-1], system)
    if frame is None:
        return Table(title="The result is no table")
    table = Table(*frame.collect_schema().names(), title="First rows of the result")
    for row in frame.head(_FIRST_ROWS).collect().iter_rows():
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row))
    return table


def _frame(task: dict[str, Any], system: LocalSystem) -> pl.LazyFrame | None:
    value = _value(task)
    if not isinstance(value, ClaimCheck) or value.media_type != _FRAME:
        return None
    folder = system.config.home / "demo"
    folder.mkdir(exist_ok=True)
    return pl.scan_parquet(open_store(system.config.store_url).fetch(value, into=folder))


def _value(task: dict[str, Any]) -> Value | None:
    return parse_value(task["result"], path="result") if task.get("result") else None
