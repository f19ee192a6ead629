"""Opening attempts: the intent to publish is written before anything is published."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shepherd.broker.port import LARGEST_MESSAGE, Message
from shepherd.broker.topology import task_queue
from shepherd.domain.status import AttemptStatus, TaskStatus
from shepherd.pipelines import sql
from shepherd.pipelines.changes import Change, write_changes
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskEnvelope
from shepherd.wire.value import parse_value

#: Bytes of an envelope beside its context and its data, at most.
_BESIDE: Final = 4096


@dataclass(frozen=True, slots=True)
class Intent:
    """An attempt that is written down and waits to be published."""

    token: str
    name: str
    #: The task's row, with its run's columns and the attempt's number, context and data.
    row: Mapping[str, Any]

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Intent":
        return cls(row["token"], row["name"], row)

    def message(self, *, now: datetime) -> Message:
        row = self.row
        envelope = TaskEnvelope(
            token=self.token,
            attempt=row["attempt_no"],
            task_id=str(sql.as_uuid(row["task_id"])),
            name=self.name,
            order_no=row["order_no"],
            run_id=str(sql.as_uuid(row["run_id"])),
            run_number=row["run_number"],
            pipeline_name=row["pipeline_name"],
            project=row["project"],
            context=strict_json.loads(row["context"]),
            data=parse_value(strict_json.loads(row["data"]), path="data"),
            published_at=now,
            run_timeout_s=sql.policy(row["policy"]).run_timeout,
            sample_rows=row["sample_rows"],
            # What follows gets whatever the first task made of its sample.
            data_rows=row["sample_rows"] if row["position"] == 0 else None,
        )
        return Message(routing_key=task_queue(self.name), body=envelope.to_bytes(), message_id=self.token, type="task")


@dataclass(frozen=True, slots=True)
class NextTask:
    """A pending task with all that its attempt is sent with."""

    row: Mapping[str, Any]
    #: JSON texts, as they are stored.
    context: str
    data: str
    #: Why it is opened, when no task before it says so.
    reason: str = ""

    @property
    def oversize(self) -> str:
        """Why no broker would ever take it, which would wait for ever and keep others waiting; empty if one does."""
        size = sum(len(text.encode()) for text in (self.context, self.data)) + _BESIDE
        return f"makes a message of {size} bytes; at most {LARGEST_MESSAGE} travel" if size > LARGEST_MESSAGE else ""


def open_attempts(tasks: Sequence[NextTask], *, now: datetime, by: str) -> list[Intent]:
    """Write one new attempt for each pending task, in the caller's transaction, which has them locked."""
    if not tasks:
        return []
    intents = [_intent(task) for task in tasks]
    when = sql.time(now)
    sql.insert(
        "pipelines_attempt",
        ("task_id", "attempt_no", "token", "context", "data", "status", "worker", "published_at", "log_lines"),
        [
            (
                intent.row["task_number"],
                intent.row["attempt_no"],
                intent.token,
                intent.row["context"],
                intent.row["data"],
                AttemptStatus.PUBLISHED.value,
                "",
                when,
                0,
            )
            for intent in intents
        ],
    )
    numbers = [task.row["task_number"] for task in tasks]
    for chunk in map(sql.padded, sql.chunks(numbers)):
        sql.execute(
            f"""UPDATE pipelines_task SET status = %s, attempt_no = attempt_no + 1, published_at = %s, retry_at = NULL
                WHERE number IN {sql.places(chunk)}""",
            [TaskStatus.PUBLISHED.value, when, *chunk],
        )
    write_changes(
        [_change(intent, by, reason=task.reason) for intent, task in zip(intents, tasks, strict=True)], at=now
    )
    return intents


def _intent(task: NextTask) -> Intent:
    row = {
        **task.row,
        "attempt_no": task.row["task_attempt_no"] + 1,
        "context": task.context,
        "data": task.data,
    }
    return Intent(secrets.token_urlsafe(24), task.row["name"], row)


def _change(intent: Intent, by: str, *, reason: str) -> Change:
    row = intent.row
    numbers = (row["run_number"], row["task_number"], row["attempt_no"])
    return Change(*numbers, row["task_status"], TaskStatus.PUBLISHED, by, reason)
