"""What the broker gave up: a task that was delivered too often, or a message that nobody can use."""

from datetime import datetime
from typing import Final

from django.db import transaction

from shepherd.domain.status import AttemptStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import Moved
from shepherd.pipelines.batch import is_open
from shepherd.pipelines.recording import locked_attempts
from shepherd.pipelines.setbacks import Draw, Setback, record_setbacks
from shepherd.pipelines.withdrawn import forget
from shepherd.wire.envelope import TaskError

#: Characters of a message that are kept; enough for everything but a large result.
BODY_LIMIT: Final = 64 * 1024
#: Bytes of it that can become these.
BYTES_KEPT: Final = BODY_LIMIT * 4
_REASON_LIMIT: Final = 2000
#: Older ones are of no use to anybody; a worker in another language may make many.
MESSAGES_KEPT: Final = 10_000


def record_dead_letter(token: str, error: TaskError, *, now: datetime, draw: Draw) -> Moved | None:
    """End the attempt whose message the broker gave up, as one that was lost; None if nobody knows it.

    One that a worker has claimed, or that was answered, stays as it is.
    """
    moved = Moved()
    with transaction.atomic():
        row = locked_attempts([token]).get(token)
        if row is None:
            return None
        if is_open(row) and row["claimed_at"] is None:
            setback = Setback(row=row, status=AttemptStatus.LOST, error=error)
            record_setbacks([setback], moved, now=now, draw=draw)
        else:
            forget([row["attempt_number"]])
    return moved


def keep_dead_message(*, source: str, reason: str, body: bytes, now: datetime) -> None:
    """Store a message that nobody can use, for people to look at; beyond `MESSAGES_KEPT` the oldest goes."""
    sql.insert(
        "pipelines_deadmessage",
        ("at", "source", "reason", "body"),
        [
            (
                sql.time(now),
                sql.text(source, 255),
                sql.text(reason, _REASON_LIMIT),
                sql.text(body[:BYTES_KEPT].decode("utf-8", "replace"), BODY_LIMIT),
            )
        ],
    )
    sql.execute(
        "DELETE FROM pipelines_deadmessage WHERE number <= (SELECT MAX(number) FROM pipelines_deadmessage) - %s",
        [MESSAGES_KEPT],
    )
