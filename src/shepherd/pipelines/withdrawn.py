"""Attempts that were withdrawn or lost before they were answered, and that a queue or a worker may still have."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction

from shepherd.pipelines import sql
from shepherd.pipelines.announced import awaited_names

#: One condition for each of the partial indexes, which are found by their own conditions only.
_LISTED: Final = ("is_queued AND status = 'withdrawn'", "is_queued AND status = 'lost'")


def queued_withdrawn() -> list[str]:
    """Return their tokens, the oldest first: whoever gets or has one of them must not execute it."""
    # In so many words, since SQLite finds an index of some rows only for conditions without parameters.
    found = sql.rows("SELECT token FROM pipelines_attempt WHERE is_queued AND status = 'withdrawn' ORDER BY number")
    return [row["token"] for row in found]


def queued_lost() -> list[str]:
    """Return the tokens of lost attempts, the oldest first, that whoever gets one must not begin.

    Their workers died before the ack, for all that is known: the broker may give them to somebody else.
    """
    found = sql.rows("SELECT token FROM pipelines_attempt WHERE is_queued AND status = 'lost' ORDER BY number")
    return [row["token"] for row in found]


def withdraw(task_numbers: Sequence[int], *, now: datetime) -> None:
    """Take back the unfinished attempts of these tasks, in the caller's transaction. Workers are yet to be told."""
    if task_numbers:
        sql.execute(
            f"""UPDATE pipelines_attempt SET status = 'withdrawn', finished_at = %s, is_queued = TRUE
                WHERE task_id IN {sql.places(task_numbers)} AND status IN ('published', 'running')""",
            [sql.time(now), *task_numbers],
        )


def forget(attempt_numbers: Sequence[int]) -> None:
    """Note that the broker has nothing of these any more, and no worker either."""
    if attempt_numbers:
        sql.execute(
            f"UPDATE pipelines_attempt SET is_queued = FALSE WHERE number IN {sql.places(attempt_numbers)}",
            attempt_numbers,
        )


def note_answered(attempt_numbers: Sequence[int]) -> None:
    """Note that workers answered for these: what is on the list leaves it a lease later, unless asked for again.

    Not at once, since a worker acks after it has answered: the broker gives what a dead one had to another.
    """
    if not attempt_numbers:
        return
    numbers = sql.places(attempt_numbers)
    sql.execute(
        f"""UPDATE pipelines_attempt SET is_queued = FALSE
            WHERE number IN {numbers} AND status NOT IN ('withdrawn', 'lost')""",
        attempt_numbers,
    )
    sql.execute(
        f"""UPDATE pipelines_attempt SET lease_until = {sql.from_now(settings.SHEPHERD.lease.total_seconds())}
            WHERE number IN {numbers} AND status IN ('withdrawn', 'lost') AND is_queued""",
        attempt_numbers,
    )


def has_silent() -> bool:
    """Return whether there are such as `forget_silent` takes off the list."""
    return any(sql.rows(f"SELECT number FROM pipelines_attempt WHERE {each} LIMIT 1") for each in _silent())


def forget_silent() -> None:
    """Take off the list what a worker had claimed that is gone, or has answered for a lease ago.

    Only to be called by who would have heard that it was delivered again.
    """
    for condition in _silent():
        _forget_where(condition, [])


def _silent() -> list[str]:
    return [f"{listed} AND lease_until < {sql.from_now()}" for listed in _LISTED]


def forget_unqueued(*, now: datetime) -> None:
    """Take off the list what no queue holds, since a worker of its name has waited for a delivery for a lease.

    Such as was cancelled before the broker had it, lay in a queue that was deleted, or was acked before it was lost.
    """
    listed = [each for each in _LISTED if sql.rows(f"SELECT number FROM pipelines_attempt WHERE {each} LIMIT 1")]
    lease_ago = now - settings.SHEPHERD.lease
    names = awaited_names(idle_since=lease_ago, now=now) if listed else []
    for each in listed if names else []:
        _forget_where(
            f"""{each} AND lease_until IS NULL AND finished_at < %s AND task_id IN
                (SELECT number FROM pipelines_task WHERE name IN {sql.places(names)})""",
            [sql.time(lease_ago), *names],
        )


def forget_of(names: Sequence[str]) -> None:
    """Take off the list what lay in the queues of these tasks, which were empty and are gone."""
    for each in _LISTED if names else ():
        _forget_where(
            f"{each} AND task_id IN (SELECT number FROM pipelines_task WHERE name IN {sql.places(list(names))})",
            list(names),
        )


def _forget_where(condition: str, parameters: list[object]) -> None:
    with transaction.atomic():
        # By number, as everybody locks them: else two may wait for each other.
        sql.execute(
            f"""UPDATE pipelines_attempt SET is_queued = FALSE WHERE number IN (SELECT number FROM pipelines_attempt
                WHERE {condition} ORDER BY number {sql.for_update(skip_locked=True)})""",
            parameters,
        )
