"""Attempts that are to be published again: nobody knows whether the broker has them, or it has them no more."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS
from shepherd.pipelines.announced import awaited_names
from shepherd.pipelines.intents import Intent

#: No attempt is this much younger than the time of which anybody asks.
_LONGEST_AHEAD: Final = timedelta(minutes=1)


def confirm(tokens: Sequence[str], *, now: datetime) -> None:
    """Note that the broker has these; the sweep doesn't publish them again."""
    for chunk in map(sql.padded, sql.chunks(tokens)):
        # In the order in which replies lock them that come at the same time: else each may wait for the other.
        sql.execute(
            f"""UPDATE pipelines_attempt SET confirmed_at = %s WHERE number IN (SELECT number FROM pipelines_attempt
                WHERE confirmed_at IS NULL AND token IN {sql.places(chunk)} ORDER BY number {sql.for_update()})""",
            [sql.time(now), *chunk],
        )


def unconfirmed(*, before: datetime, after_number: int = 0, limit: int) -> list[Intent]:
    """Return attempts that were opened before a time and of which nobody knows whether the broker has them, in order.

    Those that were opened well after it, too: the clock was put back since.
    """
    found = sql.rows(
        f"""{ATTEMPTS} WHERE a.confirmed_at IS NULL AND a.status = 'published'
            AND (a.published_at < %s OR a.published_at > %s) AND a.number > %s
            ORDER BY a.number LIMIT {int(limit)}""",
        [sql.time(before), sql.time(before + _LONGEST_AHEAD), after_number],
    )
    return [Intent.of_row(row) for row in found]


#: What RabbitMQ has confirmed, and no worker has taken over: selects attempts with their tasks and runs.
_IN_A_QUEUE: Final = f"""{ATTEMPTS} WHERE t.status IN ('published', 'running') AND r.status = 'running'
    AND a.attempt_no = t.attempt_no AND a.status IN ('published', 'running') AND a.is_queued AND a.claimed_at IS NULL
    AND a.confirmed_at < %s AND (a.seen_at IS NULL OR a.seen_at < %s)"""


def missed(*, now: datetime, limit: int) -> list[Intent]:
    """Return attempts that no queue can have any more, and count them as seen now.

    The broker confirmed them, no heartbeat has named them for a lease, and a worker of their name has waited for a
    delivery as long. Only to be called by who would have heard the heartbeats.
    """
    lease_ago = now - settings.SHEPHERD.lease
    names = awaited_names(idle_since=lease_ago, now=now)
    return _seen_now(names, confirmed_before=lease_ago, unseen_since=lease_ago, now=now, limit=limit)


def has_missed(*, now: datetime) -> bool:
    """Return whether there are such."""
    lease_ago = now - settings.SHEPHERD.lease
    names = awaited_names(idle_since=lease_ago, now=now)
    return bool(names) and bool(_in_a_queue(names, confirmed_before=lease_ago, unseen_since=lease_ago, limit=1))


def of_lost_queues(names: Collection[str], *, missing_at: datetime, now: datetime, limit: int) -> list[Intent]:
    """Return attempts whose queue was found missing at a time, and count them as seen now; to be asked until none is.

    Those that a worker named lately are in its hands, which needs no queue.
    """
    unseen_since = now - settings.SHEPHERD.worker_gone_after
    return _seen_now(names, confirmed_before=missing_at, unseen_since=unseen_since, now=now, limit=limit)


def forget_confirms(names: Collection[str]) -> int:
    """Take back that the broker has what is published of these tasks, whose queues were deleted; return how many.

    The sweep publishes them again, the same attempts.
    """
    if not names:
        return 0
    return sql.changed(
        f"""UPDATE pipelines_attempt SET confirmed_at = NULL WHERE status = 'published' AND claimed_at IS NULL
            AND task_id IN (SELECT number FROM pipelines_task
                WHERE status IN ('published', 'running') AND name IN {sql.places(list(names))})""",
        list(names),
    )


def unfinished_names() -> list[str]:
    """Return the names of all tasks that the broker or a worker may have."""
    found = sql.rows("SELECT DISTINCT name FROM pipelines_task WHERE status IN ('published', 'running')")
    return [row["name"] for row in found]


def _seen_now(
    names: Collection[str], *, confirmed_before: datetime, unseen_since: datetime, now: datetime, limit: int
) -> list[Intent]:
    if not names:
        return []
    with transaction.atomic():
        found = _in_a_queue(names, confirmed_before=confirmed_before, unseen_since=unseen_since, limit=limit)
        numbers = [row["attempt_number"] for row in found]
        if numbers:
            sql.execute(
                f"UPDATE pipelines_attempt SET seen_at = %s WHERE number IN {sql.places(numbers)}",
                [sql.time(now), *numbers],
            )
    return [Intent.of_row(row) for row in found]


def _in_a_queue(
    names: Collection[str], *, confirmed_before: datetime, unseen_since: datetime, limit: int
) -> list[dict[str, Any]]:
    return sql.rows(
        f"""{_IN_A_QUEUE} AND t.name IN {sql.places(list(names))} ORDER BY a.number LIMIT {int(limit)}
            {sql.for_update(of="a", skip_locked=True)}""",
        [sql.time(confirmed_before), sql.time(unseen_since), *names],
    )
