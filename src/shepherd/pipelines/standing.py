"""Where a run stands, held still for whoever wants to change it from outside the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from django.db import OperationalError

from shepherd.domain.status import RunStatus
from shepherd.errors import DatabaseUnavailableError, NotFoundError
from shepherd.pipelines import sql

_T = TypeVar("_T")

#: A run moves on once a task; nobody meets so many moves in a row.
_TRIES: Final = 20
#: PostgreSQL's name for a deadlock that it broke.
_DEADLOCK: Final = "40P01"


class OvertakenError(Exception):
    """The run moved on between two looks; nothing was changed, and another try will see it where it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedTask:
    """The first task that has not succeeded."""

    number: int
    name: str
    status: str
    attempt_no: int
    #: True when only the run's flow knows what it is to be sent with.
    is_flows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run is."""

    number: int
    status: RunStatus
    has_started: bool
    has_data: bool
    finished_at: datetime | None
    task: StoppedTask | None
    #: Numbers of this task's attempts that may still be answered.
    attempts: tuple[int, ...]


def settled(step: Callable[[], _T]) -> _T:
    """Return what `step` does once nothing comes in between. It is called again after being overtaken.

    Raises:
        DatabaseUnavailableError: It was overtaken each time.
    """
    for _ in range(_TRIES):
        try:
            return step()
        except OvertakenError:
            continue
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != _DEADLOCK:
                raise
    raise DatabaseUnavailableError("the run moved on each time that it was looked at; try again")


def hold(number: int) -> Standing:
    """Return where a run is, and keep it there until the end of the caller's transaction.

    Raises:
        NotFoundError: There is no such run.
    """
    # The run before its tasks and attempts, as everybody does who moves it: nobody has a part that another one needs.
    sql.rows(f"SELECT number FROM pipelines_run WHERE number = %s {sql.for_update()}", [number])
    return look(number)


def look(number: int) -> Standing:
    """Return where a run is now.

    Raises:
        NotFoundError: There is no such run.
    """
    runs = sql.rows(
        """SELECT status, started_at IS NOT NULL AS has_started, data IS NOT NULL AS has_data, finished_at
           FROM pipelines_run WHERE number = %s""",
        [number],
    )
    if not runs:
        raise NotFoundError(f"there is no run {number}")
    task = _stopped_task(number)
    return Standing(
        number=number,
        status=RunStatus(runs[0]["status"]),
        has_started=bool(runs[0]["has_started"]),
        has_data=bool(runs[0]["has_data"]),
        finished_at=sql.as_time(runs[0]["finished_at"]) if runs[0]["finished_at"] else None,
        task=task,
        attempts=_unfinished_attempts(task) if task is not None else (),
    )


def _stopped_task(run_number: int) -> StoppedTask | None:
    found = sql.rows(
        """SELECT t.number, t.name, t.status, t.attempt_no, (t.is_led OR COALESCE(earlier.is_led, t.is_led)) AS is_flows
           FROM pipelines_task t
           LEFT JOIN pipelines_task earlier ON earlier.run_id = t.run_id AND earlier.position = t.position - 1
           WHERE t.run_id = %s AND t.status <> 'succeeded' ORDER BY t.position LIMIT 1""",
        [run_number],
    )
    return StoppedTask(**{**found[0], "is_flows": bool(found[0]["is_flows"])}) if found else None


def _unfinished_attempts(task: StoppedTask) -> tuple[int, ...]:
    found = sql.rows(
        """SELECT number FROM pipelines_attempt WHERE task_id = %s AND status IN ('published', 'running')
           ORDER BY number""",
        [task.number],
    )
    return tuple(row["number"] for row in found)
