"""Removing what ended long ago: runs with all that belongs to them, and messages that nobody could use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import transaction

from shepherd.pipelines import sql

#: Runs that one transaction removes at most, and log lines: on SQLite nobody else writes meanwhile.
_RUNS_AT_ONCE: Final = 50
_LINES_AT_ONCE: Final = 10_000
_ENDED: Final = "r.status IN ('succeeded', 'failed', 'cancelled') AND r.finished_at < %s"
#: Whoever gets one of these from a queue is told not to execute it, as long as it is known.
_QUEUED: Final = """EXISTS (SELECT 1 FROM pipelines_task t JOIN pipelines_attempt a ON a.task_id = t.number
    WHERE t.run_id = r.number AND a.status IN ('withdrawn', 'lost') AND a.is_queued)"""
_ATTEMPTS: Final = (
    "SELECT a.number FROM pipelines_attempt a JOIN pipelines_task t ON t.number = a.task_id WHERE t.run_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many rows of each kind."""

    runs: int = 0
    tasks: int = 0
    attempts: int = 0
    changes: int = 0
    lines: int = 0

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def old_runs(*, before: datetime) -> list[int]:
    """Return the numbers of the runs that ended before a time and that nothing holds, in order."""
    found = sql.rows(
        f"SELECT r.number FROM pipelines_run r WHERE {_ENDED} AND NOT {_QUEUED} ORDER BY r.number", [sql.time(before)]
    )
    return [row["number"] for row in found]


def held_runs(*, before: datetime) -> int:
    """Return how many runs ended before a time and stay, for a withdrawn or lost attempt that a queue may have."""
    found = sql.rows(f"SELECT COUNT(*) AS n FROM pipelines_run r WHERE {_ENDED} AND {_QUEUED}", [sql.time(before)])
    return int(found[0]["n"])


def rows_of(numbers: list[int]) -> Rows:
    """Return what belongs to these runs."""
    total = Rows()
    for chunk in sql.chunks(numbers):
        runs = sql.places(chunk)
        total += Rows(
            runs=len(chunk),
            tasks=_count(f"pipelines_task WHERE run_id IN {runs}", chunk),
            attempts=_count(f"pipelines_attempt WHERE number IN ({_ATTEMPTS} IN {runs})", chunk),
            changes=_count(f"pipelines_statuschange WHERE run_id IN {runs}", chunk),
            lines=_count(f"pipelines_logline WHERE attempt_id IN ({_ATTEMPTS} IN {runs})", chunk),
        )
    return total


def remove_old_runs(*, before: datetime) -> Iterator[Rows]:
    """Remove runs that ended before a time, a few in each transaction, and tell of each what went.

    Safe to break off and to call again, from several processes, while the system runs. Each run is looked at again
    under its lock: one that was resumed meanwhile stays, and one that is being run again is left to the next call.
    """
    after = 0
    while numbers := _next(after, before=before):
        yield from _remove_long_logs(numbers)
        yield _remove(numbers, before=before)
        after = numbers[-1]


def remove_old_dead_messages(*, before: datetime) -> Iterator[int]:
    """Remove messages that were kept before a time, some in each transaction, and tell of each how many went."""
    oldest = "SELECT number FROM pipelines_deadmessage WHERE at < %s ORDER BY number LIMIT 1000"
    while removed := sql.changed(f"DELETE FROM pipelines_deadmessage WHERE number IN ({oldest})", [sql.time(before)]):
        yield removed


def old_dead_messages(*, before: datetime) -> int:
    return _count("pipelines_deadmessage WHERE at < %s", [sql.time(before)])


def _next(after: int, *, before: datetime) -> list[int]:
    found = sql.rows(
        f"""SELECT r.number FROM pipelines_run r WHERE r.number > %s AND {_ENDED} AND NOT {_QUEUED}
            ORDER BY r.number LIMIT {_RUNS_AT_ONCE}""",
        [after, sql.time(before)],
    )
    return [row["number"] for row in found]


def _remove_long_logs(numbers: list[int]) -> Iterator[Rows]:
    """Take away lines until few enough are left for one transaction; logs are the only part that may be long."""
    runs = sql.places(numbers)
    lines = f"SELECT l.number FROM pipelines_logline l WHERE l.attempt_id IN ({_ATTEMPTS} IN {runs})"
    while _count(f"({lines} LIMIT {_LINES_AT_ONCE + 1}) many", numbers) > _LINES_AT_ONCE:
        statement = f"DELETE FROM pipelines_logline WHERE number IN ({lines} LIMIT {_LINES_AT_ONCE})"
        yield Rows(lines=sql.changed(statement, numbers))


def _remove(wanted: list[int], *, before: datetime) -> Rows:
    with transaction.atomic():
        # What makes a run again, or moves it, locks it first: see `standing.py` and `again.py`.
        found = sql.rows(
            f"""SELECT r.number FROM pipelines_run r
                WHERE r.number IN {sql.places(wanted)} AND {_ENDED} AND NOT {_QUEUED}
                ORDER BY r.number {sql.for_update(of="r", skip_locked=True)}""",
            [*wanted, sql.time(before)],
        )
        numbers = [row["number"] for row in found]
        return _remove_locked(numbers) if numbers else Rows()


def _remove_locked(numbers: list[int]) -> Rows:
    runs = sql.places(numbers)
    lines = sql.changed(f"DELETE FROM pipelines_logline WHERE attempt_id IN ({_ATTEMPTS} IN {runs})", numbers)
    attempts = sql.changed(f"DELETE FROM pipelines_attempt WHERE number IN ({_ATTEMPTS} IN {runs})", numbers)
    changes = sql.changed(f"DELETE FROM pipelines_statuschange WHERE run_id IN {runs}", numbers)
    tasks = sql.changed(f"DELETE FROM pipelines_task WHERE run_id IN {runs}", numbers)
    # Runs that repeat these have all that they need themselves.
    sql.execute(f"UPDATE pipelines_run SET origin_id = NULL WHERE origin_id IN {runs}", numbers)
    removed = sql.changed(f"DELETE FROM pipelines_run WHERE number IN {runs}", numbers)
    return Rows(runs=removed, tasks=tasks, attempts=attempts, changes=changes, lines=lines)


def _count(what: str, parameters: Sequence[Any]) -> int:
    return int(sql.rows(f"SELECT COUNT(*) AS n FROM {what}", parameters)[0]["n"])
