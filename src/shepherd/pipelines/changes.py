"""The audit trail: a row for every change of a status."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from shepherd.pipelines import sql


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one status."""

    run_number: int
    #: None for a change of the run itself.
    task_number: int | None
    attempt_no: int | None
    from_status: str
    to_status: str
    by: str
    reason: str = ""


_COLUMNS = ("run_id", "task_id", "attempt_no", "from_status", "to_status", "by", "reason", "at")


def write_changes(changes: Iterable[Change], *, at: datetime) -> None:
    """Write the rows, in the transaction of the change itself."""
    when = sql.time(at)
    rows = [
        (
            change.run_number,
            change.task_number,
            change.attempt_no,
            str(change.from_status),
            str(change.to_status),
            sql.text(change.by, 255),
            sql.text(change.reason, 2000),
            when,
        )
        for change in changes
    ]
    sql.insert("pipelines_statuschange", _COLUMNS, rows)
