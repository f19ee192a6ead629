"""Intents of which nobody knows yet whether the broker has them."""

from collections.abc import Sequence
from datetime import datetime

from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS
from shepherd.pipelines.intents import Intent


def confirm(tokens: Sequence[str], *, now: datetime) -> None:
    """Note that the broker has these; the sweep doesn't publish them again."""
    for chunk in map(sql.padded, sql.chunks(tokens)):
        sql.execute(
            f"""UPDATE pipelines_attempt SET confirmed_at = %s
                WHERE confirmed_at IS NULL AND token IN {sql.places(chunk)}""",
            [sql.time(now), *chunk],
        )


def unconfirmed(*, before: datetime, limit: int) -> list[Intent]:
    """Return attempts that were opened before a time and of which nobody knows whether the broker has them."""
    found = sql.rows(
        f"""{ATTEMPTS} WHERE a.confirmed_at IS NULL AND a.status = 'published' AND a.published_at < %s
            ORDER BY a.number LIMIT {int(limit)}""",
        [sql.time(before)],
    )
    return [Intent.of_row(row) for row in found]
