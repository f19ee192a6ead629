"""What the database says when everything has come to rest, read past all of Shepherd's own code."""

import json
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]

_JSON = {"data", "error", "context", "result", "corrected_context"}
_TABLES = {
    "runs": "pipelines_run",
    "tasks": "pipelines_task",
    "attempts": "pipelines_attempt",
    "changes": "pipelines_statuschange",
    "dead": "pipelines_deadmessage",
}


@dataclass(frozen=True, kw_only=True)
class Records:
    """All rows of the tables that tell what became of runs, each by its number."""

    runs: dict[int, Row]
    tasks: dict[int, Row]
    attempts: dict[int, Row]
    changes: dict[int, Row]
    dead: dict[int, Row]

    def tasks_of(self, run_number: int) -> list[Row]:
        """Return a run's tasks in order."""
        return self._tasks_by_run.get(run_number, [])

    def attempts_of(self, task_number: int) -> list[Row]:
        return self._attempts_by_task.get(task_number, [])

    @cached_property
    def _tasks_by_run(self) -> dict[int, list[Row]]:
        return _grouped(self.tasks.values(), by="run_id", order="position")

    @cached_property
    def _attempts_by_task(self) -> dict[int, list[Row]]:
        return _grouped(self.attempts.values(), by="task_id", order="attempt_no")


def _grouped(rows: Iterable[Row], *, by: str, order: str) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row[order])):
        found[row[by]].append(row)
    return found


def read_records(url: str) -> Records:
    return Records(**{name: _rows(url, f"SELECT * FROM {table} ORDER BY number") for name, table in _TABLES.items()})


def read_number(url: str, query: str) -> int:
    """Return the one number that a query gives."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(f"file:{_path(url)}?mode=ro", uri=True)) as connection:
            return int(connection.execute(query).fetchone()[0])
    with psycopg.connect(url) as server:
        found = server.execute(query).fetchone()
        assert found is not None
        return int(found[0])


def _rows(url: str, query: str) -> dict[int, Row]:
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(f"file:{_path(url)}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = [dict(row) for row in connection.execute(query)]
    else:
        with psycopg.connect(url, row_factory=dict_row) as server:
            found = server.execute(query).fetchall()
    return {row["number"]: {name: _read(name, value) for name, value in row.items()} for row in found}


def _path(url: str) -> str:
    return "/" + url.removeprefix("sqlite:").lstrip("/")


def _read(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return json.loads(value)
    if name == "at" or name.endswith(("_at", "_until")):
        return _seconds(value)
    if name == "id":
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))
    return value


def _seconds(value: Any) -> float:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
