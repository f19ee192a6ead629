"""What falls due by itself: retries after their pause, and tasks that waited or ran for too long."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from shepherd.domain.policy import LONGEST_PAUSE, Policy
from shepherd.domain.status import AttemptStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS, PUBLISHER, TASKS, Moved
from shepherd.pipelines.inputs import input_of
from shepherd.pipelines.intents import NextTask, open_attempts
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
        return Moved(intents=open_attempts([_next(row) for row in due], now=now, by=PUBLISHER))


def _next(row: Mapping[str, Any]) -> NextTask:
    """Return a task as its last attempt was sent, which a publisher may have changed; or as it was corrected since."""
    before = sql.rows(
        """SELECT a.context AS context, a.data AS data, t.corrected_context AS corrected FROM pipelines_attempt a
           JOIN pipelines_task t ON t.number = a.task_id WHERE a.task_id = %s AND a.attempt_no = %s""",
        [row["task_number"], row["task_attempt_no"]],
    )
    if not before:
        return NextTask(row, row["context"], input_of(row))
    # What a publisher made of a corrected context is in the attempt that it published.
    corrected = None if row["is_led"] else before[0]["corrected"]
    return NextTask(row, corrected or before[0]["context"], before[0]["data"])


def end_waits(*, now: datetime, draw: Draw) -> Moved:
    """Give up every task that no worker has begun within its `wait_timeout`."""

    def has_ended(policy: Policy, row: Mapping[str, Any]) -> bool:
        return _is_past(row["published_at"], policy.wait_timeout, now)

    def error(policy: Policy) -> TaskError:
        return TaskError(code="wait_timeout", message=f"no worker began it within {policy.wait_timeout:g} s")

    return _end("published", "wait_timeout", has_ended, error, now=now, draw=draw)


def end_runs_beyond_limit(*, now: datetime, draw: Draw) -> Moved:
    """Give up every attempt that should have been ended by its worker a lease ago, for its `run_timeout`."""
    lease_s = settings.SHEPHERD.lease.total_seconds()

    def has_ended(policy: Policy, row: Mapping[str, Any]) -> bool:
        limit = policy.run_timeout
        return _is_past(row["started_at"], None if limit is None else limit + lease_s, now)

    def error(policy: Policy) -> TaskError:
        message = f"it ran for more than {policy.run_timeout:g} s, and its worker didn't end it"
        return TaskError(code="run_timeout", message=message)

    return _end("running", "run_timeout", has_ended, error, now=now, draw=draw)


def _end(
    status: str,
    limit: str,
    has_ended: Callable[[Policy, Mapping[str, Any]], bool],
    error: Callable[[Policy], TaskError],
    *,
    now: datetime,
    draw: Draw,
) -> Moved:
    moved = Moved()
    limited = sql.rows(
        f"""SELECT t.number AS number, t.attempt_no AS attempt_no, t.policy AS policy, t.published_at AS published_at,
            t.started_at AS started_at
            FROM pipelines_task t WHERE {_UNFINISHED} AND t.status = '{status}' AND t.policy LIKE %s""",
        [f"%{limit}%"],
    )
    ended = (row for row in limited if has_ended(sql.policy(row["policy"]), row))
    over = {row["number"]: row["attempt_no"] for row in islice(ended, _AT_ONCE)}
    if not over:
        return moved
    with transaction.atomic():
        rows = sql.rows(
            f"""{ATTEMPTS} WHERE t.number IN {sql.places(list(over))} AND t.status = '{status}' AND r.status = 'running'
                AND a.attempt_no = t.attempt_no AND a.status = '{status}'
                ORDER BY a.number {sql.for_update(of="r, t, a", skip_locked=True)}""",
            over,
        )
        setbacks = [
            Setback(row=row, status=AttemptStatus.WITHDRAWN, error=error(sql.policy(row["policy"])))
            for row in rows
            if row["attempt_no"] == over[row["task_number"]]
        ]
        record_setbacks(setbacks, moved, now=now, draw=draw)
    return moved


def _is_past(since: Any, limit_s: float | None, now: datetime) -> bool:
    return since is not None and limit_s is not None and sql.as_time(since) + timedelta(seconds=limit_s) <= now
