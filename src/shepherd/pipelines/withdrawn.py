"""Attempts that were withdrawn before they were answered, and whose message the broker may still have."""

from shepherd.pipelines import sql


def queued_withdrawn() -> list[str]:
    """Return their tokens, the oldest first: whom one of them comes to must not begin it."""
    # In so many words, since SQLite finds an index of some rows only for conditions without parameters.
    found = sql.rows("SELECT token FROM pipelines_attempt WHERE is_queued AND status = 'withdrawn' ORDER BY number")
    return [row["token"] for row in found]
