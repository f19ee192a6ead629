"""What falls due by itself: retries after their pause, and tasks that waited or ran for too long."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from shepherd.domain.policy import LONGEST_PAUSE
from shepherd.domain.status import AttemptStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS, TASKS, Moved, open_next
from shepherd.pipelines.inputs import input_of
from shepherd.pipelines.intents import NextTask
from shepherd.pipelines.setbacks import Draw, Setback, record_setbacks
from shepherd.wire.envelope import TaskError

#: Of one transaction.
_AT_ONCE: Final = 200
#: The partial index is found by its own condition only.
_UNFINISHED: Final = "t.status IN ('published', 'running')"


def open_retries(*, now: datetime) -> Moved:
    """Open the next attempt of every task whose pause is over, or is longer than any: the clock was put back since."""
    with transaction.atomic():
        due = sql.rows(
            f"""{TASKS} WHERE (t.retry_at <= %s OR t.retry_at > %s) AND t.status = 'pending' AND r.status = 'running'
                ORDER BY t.number LIMIT {_AT_ONCE} {sql.for_update(of="r, t", skip_locked=True)}""",
            [sql.time(now), sql.time(now + LONGEST_PAUSE)],
        )
        before = _last_attempts([row["task_number"] for row in due])
        moved = Moved(is_full=len(due) == _AT_ONCE)
        open_next([_next(row, before.get(row["task_number"])) for row in due], moved, now=now)
        return moved


def _last_attempts(task_numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    if not task_numbers:
        return {}
    found = sql.rows(
        f"""SELECT a.task_id AS task_number, a.context AS context, a.data AS data, t.corrected_context AS corrected
            FROM pipelines_attempt a JOIN pipelines_task t ON t.number = a.task_id AND t.attempt_no = a.attempt_no
            WHERE a.task_id IN {sql.places(task_numbers)}""",
        task_numbers,
    )
    return {row["task_number"]: row for row in found}


def _next(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> NextTask:
    """Return a task as its last attempt was sent, which a publisher may have changed; or as it was corrected since."""
    if before is None:
        return NextTask(row, row["context"], input_of(row))
    # What a publisher made of a corrected context is in the attempt that it published.
    corrected = None if row["is_led"] else before["corrected"]
    return NextTask(row, corrected or before["context"], before["data"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """One field of the policies, as a limit on how long a task stays as it is."""

    field: str
    #: Of the tasks that it limits.
    status: str
    #: Since when, a column of the task.
    since: str
    #: How much longer than the policy says.
    grace_s: float
    message: str
    #: A further condition on the task; its parameters are when a lease ago was, and now.
    only: str = "%s < %s"

    def begun_before(self, policy: str, now: datetime) -> datetime | None:
        """Return since before when a task of this policy is over it; None where that has no such limit."""
        stated: float | None = getattr(sql.policy(policy), self.field)
        return None if stated is None else now - timedelta(seconds=stated + self.grace_s)

    def error(self, row: Mapping[str, Any]) -> TaskError:
        stated = getattr(sql.policy(row["policy"]), self.field)
        return TaskError(code=self.field, message=self.message.format(stated))


_WAIT: Final = _Limit(
    field="wait_timeout",
    status="published",
    since="published_at",
    grace_s=0.0,
    message="no worker began it within {:g} s",
    # A worker that executes an attempt given up as lost has begun it, as long as its success would still count.
    only="""NOT EXISTS (SELECT 1 FROM pipelines_attempt l WHERE l.task_id = t.number AND l.status = 'lost'
        AND l.attempt_no >= t.attempt_no - t.failures - t.losses AND l.seen_at > %s AND l.seen_at <= %s)""",
)


def _run_limit() -> _Limit:
    return _Limit(
        field="run_timeout",
        status="running",
        since="started_at",
        # By then its worker should have ended it.
        grace_s=settings.SHEPHERD.lease.total_seconds(),
        message="it ran for more than {:g} s, and its worker didn't end it",
    )


def has_overdue(*, now: datetime) -> bool:
    """Return whether a task has waited or run for longer than its policy allows, as far as is known here."""
    return any(_over(limit, at_most=1, now=now) for limit in (_WAIT, _run_limit()))


def end_waits(*, now: datetime, draw: Draw) -> Moved:
    """Give up every task that no worker has begun within its `wait_timeout`.

    Only to be called by who would have heard that one did.
    """
    return _end(_WAIT, now=now, draw=draw)


def end_runs_beyond_limit(*, now: datetime, draw: Draw) -> Moved:
    """Give up every attempt that should have been ended by its worker a lease ago, for its `run_timeout`.

    Only to be called by who would have heard that it has ended.
    """
    return _end(_run_limit(), now=now, draw=draw)


def _end(limit: _Limit, *, now: datetime, draw: Draw) -> Moved:
    moved = Moved()
    over = _over(limit, at_most=_AT_ONCE, now=now)
    if not over:
        return moved
    with transaction.atomic():
        rows = sql.rows(
            f"""{ATTEMPTS} WHERE t.number IN {sql.places(list(over))} AND t.status = '{limit.status}'
                AND r.status = 'running' AND a.attempt_no = t.attempt_no AND a.status = '{limit.status}'
                ORDER BY a.number {sql.for_update(of="r, t, a", skip_locked=True)}""",
            over,
        )
        setbacks = [
            Setback(row=row, status=AttemptStatus.WITHDRAWN, error=limit.error(row), is_queued=True)
            for row in rows
            if row["attempt_no"] == over[row["task_number"]]
        ]
        record_setbacks(setbacks, moved, now=now, draw=draw)
    # Not where all of them are locked by somebody else, who moves them on.
    moved.is_full = len(over) == _AT_ONCE and bool(setbacks)
    return moved


def _over(limit: _Limit, *, at_most: int, now: datetime) -> dict[int, int]:
    """Return tasks that are beyond a limit, by number, each with the number of its attempt."""
    over: dict[int, int] = {}
    for policy, before in _policies_over(limit, now):
        found = sql.rows(
            f"""SELECT t.number AS number, t.attempt_no AS attempt_no FROM pipelines_task t WHERE {_UNFINISHED}
                AND t.status = '{limit.status}' AND t.policy = %s AND t.{limit.since} <= %s AND {limit.only}
                LIMIT {int(at_most)}""",
            [policy, sql.time(before), sql.time(now - settings.SHEPHERD.lease), sql.time(now)],
        )
        over |= {row["number"]: row["attempt_no"] for row in found}
        if len(over) >= at_most:
            break
    return dict(islice(over.items(), at_most))


def _policies_over(limit: _Limit, now: datetime) -> Iterator[tuple[str, datetime]]:
    """Yield policies of which a task is beyond the limit, each with the time before which it began.

    By policy, since those are few: of a hundred thousand tasks that wait none has to be looked at here.
    """
    oldest = sql.rows(
        f"""SELECT t.policy AS policy, MIN(t.{limit.since}) AS since FROM pipelines_task t
            WHERE {_UNFINISHED} AND t.status = '{limit.status}' AND t.policy LIKE %s GROUP BY t.policy""",
        [f"%{limit.field}%"],
    )
    for row in oldest:
        before = limit.begun_before(row["policy"], now)
        if before is not None and row["since"] is not None and sql.as_time(row["since"]) <= before:
            yield row["policy"], before
