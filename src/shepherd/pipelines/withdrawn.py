"""Attempts that were withdrawn before they were answered, and that a queue or a worker may still have."""

from collections.abc import Sequence
from datetime import datetime

from shepherd.pipelines import sql


def queued_withdrawn() -> list[str]:
    """Return their tokens, the oldest first: whoever gets or has one of them must not execute it."""
    # In so many words, since SQLite finds an index of some rows only for conditions without parameters.
    found = sql.rows("SELECT token FROM pipelines_attempt WHERE is_queued AND status = 'withdrawn' ORDER BY number")
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
