"""The lines that tasks logged and printed, written by the Task Publisher as workers send them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from shepherd.pipelines.models import Attempt, LogLine
from shepherd.pipelines.sql import text
from shepherd.wire.logs import LogLines

#: In characters; the SDK sends shorter ones.
_LINE_LIMIT: Final = 32 * 1024
#: The largest `PositiveIntegerField` of PostgreSQL.
_NUMBER_LIMIT: Final = 2**31 - 1
_AT_ONCE: Final = 500


def append_log_lines(batch: Sequence[LogLines], *, now: datetime) -> int:
    """Store lines under their attempts and return how many were meant for an attempt that exists.

    Safe to call again with the same lines: one that is there already, by its worker and number, stays as it is.
    Lines of unknown tokens, or with a number that no line can have, are dropped.
    """
    tokens = {text(lines.token, 64) for lines in batch}
    attempts = dict(Attempt.objects.filter(token__in=tokens).values_list("token", "pk"))
    rows = [
        LogLine(
            attempt_id=attempts[lines.token],
            worker=text(lines.worker, 255),
            n=line.n,
            at=_utc(line.at, otherwise=now),
            level=text(line.level, 10),
            text=text(line.text, _LINE_LIMIT),
        )
        for lines in batch
        if lines.token in attempts
        for line in lines.lines
        if 1 <= line.n <= _NUMBER_LIMIT
    ]
    LogLine.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_AT_ONCE)
    return len(rows)


def _utc(at: datetime, *, otherwise: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        # Before the year 1 or after 9999 once the zone is taken off.
        return otherwise
