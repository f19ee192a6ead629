"""Claimed attempts: a lease runs while a worker has one, by the database's clock, and heartbeats renew it."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from shepherd.domain.status import ENDED_RUN, UNFINISHED_ATTEMPT, UNFINISHED_TASK, AttemptStatus, TaskStatus
from shepherd.pipelines import sql, withdrawn
from shepherd.pipelines.advance import ATTEMPTS, Moved, task_change
from shepherd.pipelines.changes import write_changes
from shepherd.pipelines.setbacks import LOST, Draw, Setback, record_setbacks
from shepherd.wire.envelope import Claimed, TaskError

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Of one transaction.
_AT_ONCE: Final = 200


def _lease_end(*, leases: int = 1) -> str:
    return sql.from_now(leases * settings.SHEPHERD.lease.total_seconds())


def _is_over() -> str:
    """Return the condition on an attempt that its lease is over, or of before the database's clock was put back."""
    return f"(lease_until < {sql.from_now()} OR lease_until > {_lease_end(leases=2)})"


def record_claims(pairs: Sequence[tuple[Claimed, Mapping[str, Any]]], *, now: datetime) -> None:
    """Store that workers took attempts over from the broker, in the caller's transaction; their leases begin.

    Attempts that were withdrawn meanwhile are among them: their workers have yet to be told.
    """
    at = sql.time(now)
    open_ones = [(reply, row) for reply, row in pairs if row["attempt_status"] in UNFINISHED_ATTEMPT]
    sql.execute_many(
        f"""UPDATE pipelines_attempt SET status = 'running', worker = %s, claimed_at = %s, is_queued = FALSE,
            started_at = COALESCE(started_at, %s), confirmed_at = COALESCE(confirmed_at, %s),
            lease_until = {_lease_end()} WHERE number = %s""",
        [(sql.text(reply.worker, 255), at, at, at, row["attempt_number"]) for reply, row in open_ones],
    )
    sql.execute_many(
        f"""UPDATE pipelines_attempt SET worker = %s, claimed_at = %s, lease_until = {_lease_end()}
            WHERE number = %s AND status = 'withdrawn'""",
        [(sql.text(reply.worker, 255), at, row["attempt_number"]) for reply, row in pairs],
    )
    begun = [(reply, row) for reply, row in open_ones if row["task_status"] == TaskStatus.PUBLISHED]
    sql.execute_many(
        "UPDATE pipelines_task SET status = 'running', started_at = %s WHERE number = %s AND status = 'published'",
        [(at, row["task_number"]) for _, row in begun],
    )
    write_changes([task_change(row, TaskStatus.RUNNING, by=reply.worker) for reply, row in begun], at=now)


def renew(holds: Mapping[str, Sequence[str]], *, now: datetime) -> dict[str, list[str]]:
    """Note which attempts workers have in their hands, by the worker's id, and renew the leases of the claimed ones.

    Returns those that they had better end: withdrawn, answered by somebody else, or lost and claimed by another since.
    """
    # What no token of ours looks like is nobody's; a database may refuse to be asked for it.
    tokens = list({token: None for held in holds.values() for token in held if _TOKEN.fullmatch(token)})
    found = {row["token"]: row for chunk in sql.chunks(tokens) for row in _look(chunk)}
    current = [row["attempt_number"] for row in found.values() if row["attempt_status"] in UNFINISHED_ATTEMPT]
    for chunk in sql.chunks(current):
        _renew(chunk, now)
    lost = [row["attempt_number"] for row in found.values() if row["attempt_status"] == AttemptStatus.LOST]
    for chunk in sql.chunks(lost):
        _note_seen(chunk, now)
    stale = {
        worker: [token for token in held if token in found and _is_in_vain(found[token])]
        for worker, held in holds.items()
    }
    return {worker: held for worker, held in stale.items() if held}


def _look(tokens: Sequence[str]) -> list[dict[str, Any]]:
    return sql.rows(
        f"""SELECT a.number AS attempt_number, a.token AS token, a.status AS attempt_status, t.status AS task_status,
            r.status AS run_status, latest.claimed_at AS latest_claimed_at FROM pipelines_attempt a
            JOIN pipelines_task t ON t.number = a.task_id
            JOIN pipelines_run r ON r.number = t.run_id
            LEFT JOIN pipelines_attempt latest ON latest.task_id = t.number AND latest.attempt_no = t.attempt_no
            WHERE a.token IN {sql.places(tokens)}""",
        tokens,
    )


def _renew(numbers: Sequence[int], now: datetime) -> None:
    # One that somebody else has locked is being answered, or renewed: the next heartbeat finds it.
    sql.execute(
        f"""UPDATE pipelines_attempt SET seen_at = %s,
            lease_until = CASE WHEN claimed_at IS NULL THEN NULL ELSE {_lease_end()} END
            WHERE number IN (SELECT number FROM pipelines_attempt WHERE number IN {sql.places(numbers)}
                AND status IN ('published', 'running') {sql.for_update(skip_locked=True)})""",
        [sql.time(now), *numbers],
    )


def _note_seen(numbers: Sequence[int], now: datetime) -> None:
    """Note that lost attempts are executed all the same: their success may count, and their tasks don't wait."""
    sql.execute(
        f"""UPDATE pipelines_attempt SET seen_at = %s WHERE number IN (SELECT number FROM pipelines_attempt
            WHERE number IN {sql.places(numbers)} AND status = 'lost' ORDER BY number
            {sql.for_update(skip_locked=True)})""",
        [sql.time(now), *numbers],
    )


def _is_in_vain(row: Mapping[str, Any]) -> bool:
    if row["attempt_status"] in UNFINISHED_ATTEMPT:
        return False
    if row["attempt_status"] != AttemptStatus.LOST:
        return True
    # The success of a lost one still counts, until another worker has claimed the next.
    is_over = row["run_status"] in ENDED_RUN or row["task_status"] not in {*UNFINISHED_TASK, TaskStatus.PENDING}
    return is_over or row["latest_claimed_at"] is not None


def are_over() -> bool:
    """Return whether there is a lease to end, of an attempt that goes on or of a withdrawn one."""
    running = f"SELECT number FROM pipelines_attempt WHERE status = 'running' AND {_is_over()} LIMIT 1"
    return bool(sql.rows(running)) or withdrawn.has_silent()


def end_leases(*, now: datetime, draw: Draw) -> Moved:
    """Give up every claimed attempt whose lease is over, and open what follows it.

    Only to be called by who would have heard the heartbeats.
    """
    moved = Moved()
    with transaction.atomic():
        _shorten()
        found = sql.rows(
            f"""{ATTEMPTS} WHERE a.status = 'running' AND a.lease_until < {sql.from_now()} AND r.status = 'running'
                AND a.attempt_no = t.attempt_no ORDER BY a.number LIMIT {_AT_ONCE}
                {sql.for_update(of="r, t, a", skip_locked=True)}"""
        )
        record_setbacks([_lost(row) for row in found], moved, now=now, draw=draw)
    moved.is_full = len(found) == _AT_ONCE
    withdrawn.forget_silent()
    return moved


def _shorten() -> None:
    """Let leases of before the database's clock was put back end a lease from now, if no heartbeat comes."""
    sql.execute(
        f"""UPDATE pipelines_attempt SET lease_until = {_lease_end()}
            WHERE number IN (SELECT number FROM pipelines_attempt
                WHERE status = 'running' AND lease_until > {_lease_end(leases=2)} {sql.for_update(skip_locked=True)})"""
    )


def _lost(row: Mapping[str, Any]) -> Setback:
    lease_s = settings.SHEPHERD.lease.total_seconds()
    message = f"worker {row['worker']} has not been heard of for {lease_s:g} s"
    # A worker that died between its claim and its ack has left the attempt to the broker as well.
    error = TaskError(code=LOST, message=message)
    return Setback(row=row, status=AttemptStatus.LOST, error=error, is_queued=True)
