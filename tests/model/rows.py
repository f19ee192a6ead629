"""What the database holds, as a value: taken from it after each step, put back before the next.

Two databases that differ only in when something happened are the same value: a time is either long ago, just now, or to
come. Tokens are named after task and attempt, since chance has no place in a state.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import Model

from shepherd.pipelines import sql
from shepherd.pipelines.models import Attempt, Offer, Run, StatusChange, Task, WorkerSeen

_AGE: Final = timedelta(days=1)

PAST: Final = "past"
NOW: Final = "now"
FUTURE: Final = "future"

#: Of which it matters whether they are over; what happened when is of no account elsewhere.
_DUE: Final = frozenset({"lease_until"})
#: Of which it matters whether a lease has passed since.
_RECENT: Final = frozenset({"confirmed_at", "seen_at"})

_TABLES: Final[tuple[type[Model], ...]] = (Run, Task, Attempt)
_EMPTIED: Final[tuple[type[Model], ...]] = (StatusChange, Attempt, Task, Run, Offer, WorkerSeen)
_COLUMNS: Final = {model: tuple(str(field.column) for field in model._meta.concrete_fields) for model in _TABLES}
_TIMES: Final = {
    model: frozenset(column for column in columns if column.endswith(("_at", "_until")))
    for model, columns in _COLUMNS.items()
}


class Rows(NamedTuple):
    """One run with its tasks and attempts; each row is a tuple in the order of its columns."""

    runs: tuple[tuple[Any, ...], ...]
    tasks: tuple[tuple[Any, ...], ...]
    attempts: tuple[tuple[Any, ...], ...]

    def run(self) -> dict[str, Any]:
        return dict(zip(_COLUMNS[Run], self.runs[0], strict=True))

    def each_task(self) -> list[dict[str, Any]]:
        return [dict(zip(_COLUMNS[Task], row, strict=True)) for row in self.tasks]

    def each_attempt(self) -> list[dict[str, Any]]:
        return [dict(zip(_COLUMNS[Attempt], row, strict=True)) for row in self.attempts]

    def with_leases_over(self) -> "Rows":
        """Return these rows when a lease has passed in which nobody said anything."""
        columns = _COLUMNS[Attempt]
        return self._replace(
            attempts=tuple(
                tuple(
                    PAST if value in {NOW, FUTURE} and name in _DUE | _RECENT else value
                    for name, value in zip(columns, row, strict=True)
                )
                for row in self.attempts
            )
        )

    def with_lease_over(self, token: str) -> "Rows":
        """Return these rows when the lease of one attempt has passed in which its worker wasn't heard."""
        columns = _COLUMNS[Attempt]
        place, lease = columns.index("token"), columns.index("lease_until")
        return self._replace(
            attempts=tuple(
                (*row[:lease], PAST, *row[lease + 1 :]) if row[place] == token and row[lease] == FUTURE else row
                for row in self.attempts
            )
        )

    def tokens(self, *statuses: str) -> frozenset[str]:
        """Return the tokens of the attempts that have one of these statuses."""
        return frozenset(attempt["token"] for attempt in self.each_attempt() if attempt["status"] in statuses)


class Audit(NamedTuple):
    """One change of a status, as it was written down."""

    #: None for one of the run itself.
    position: int | None
    before: str
    after: str


def load(rows: Rows) -> None:
    """Make the database hold exactly these rows, and no audit trail."""
    at = {PAST: sql.time(datetime.now(UTC) - _AGE), NOW: sql.time(datetime.now(UTC)), FUTURE: sql.time(_tomorrow())}
    with connection.cursor() as cursor:
        for model in _EMPTIED:
            cursor.execute(f"DELETE FROM {model._meta.db_table}")
    for model, found in zip(_TABLES, rows, strict=True):
        columns, times = _COLUMNS[model], _TIMES[model]
        if found:
            values = [
                tuple(at[value] if name in times and value else value for name, value in zip(columns, row, strict=True))
                for row in found
            ]
            sql.insert(model._meta.db_table, [f'"{column}"' for column in columns], values)


def read() -> tuple[Rows, dict[str, str]]:
    """Return what the database holds, and how its tokens are named there."""
    attempts = _read(Attempt)
    positions = {row["number"]: row["position"] for row in _read(Task)}
    names = {row["token"]: f"t{positions[row['task_id']]}a{row['attempt_no']}" for row in attempts}
    # Numbers of rows that were rolled back leave gaps, which mean nothing.
    numbers = {row["number"]: number for number, row in enumerate(attempts, start=1)}
    renamed = [{**row, "token": names[row["token"]], "number": numbers[row["number"]]} for row in attempts]
    return (
        Rows(_plain(Run, _read(Run)), _plain(Task, _read(Task)), _plain(Attempt, renamed)),
        names,
    )


def read_audit() -> list[Audit]:
    positions = {row["number"]: row["position"] for row in _read(Task)}
    return [
        Audit(None if row["task_id"] is None else positions[row["task_id"]], row["from_status"], row["to_status"])
        for row in sql.rows("SELECT * FROM pipelines_statuschange ORDER BY number")
    ]


def read_runs() -> list[Rows]:
    """Return what the database holds of each run, with the tokens as they are."""
    runs, tasks, attempts = _read(Run), _read(Task), _read(Attempt)
    found = []
    for run in runs:
        own = [task for task in tasks if task["run_id"] == run["number"]]
        numbers = {task["number"] for task in own}
        held = [attempt for attempt in attempts if attempt["task_id"] in numbers]
        found.append(Rows(_plain(Run, [run]), _plain(Task, own), _plain(Attempt, held)))
    return found


def read_whole_audit(run_number: int) -> list[Audit]:
    """Return every change of a run and its tasks, from the first."""
    changes = StatusChange.objects.filter(run_id=run_number).order_by("number")
    found = changes.values_list("task__position", "from_status", "to_status")
    return [Audit(*change) for change in found]


def _read(model: type[Model]) -> list[dict[str, Any]]:
    return sql.rows(f"SELECT * FROM {model._meta.db_table} ORDER BY number")


def _plain(model: type[Model], found: Sequence[Mapping[str, Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        tuple(_abstract(name, row[name]) if name in _TIMES[model] else row[name] for name in _COLUMNS[model])
        for row in found
    )


def _abstract(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name in _DUE:
        return FUTURE if _time(value) > datetime.now(UTC) else PAST
    is_recent = name in _RECENT and _time(value) > datetime.now(UTC) - _AGE / 2
    return NOW if is_recent else PAST


def _time(found: datetime) -> datetime:
    # SQLite's have no zone.
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _tomorrow() -> datetime:
    return datetime.now(UTC) + _AGE
