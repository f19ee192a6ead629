"""What follows an attempt that didn't succeed: another one at once, another one later, or the end of its run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shepherd.domain.status import AttemptStatus, RunStatus, TaskStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import PUBLISHER, Moved, end_runs, task_change
from shepherd.pipelines.changes import Change, write_changes
from shepherd.pipelines.intents import NextTask, open_attempts
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskError

#: Returns a number from 0 up to 1, by chance.
Draw = Callable[[], float]

LOST: Final = "lost"
DELIVERED_TOO_OFTEN: Final = "delivered_too_often"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """How an attempt ended without success."""

    #: Its row of `ATTEMPTS`, locked: the latest attempt of its task, and unfinished.
    row: Mapping[str, Any]
    #: `failed`; `lost`, which the policy counts for itself; or `withdrawn` by us, which counts as failed.
    status: AttemptStatus
    #: Kept with the attempt, whatever follows.
    error: TaskError
    by: str = PUBLISHER
    #: Whether the broker may have it, so that workers are to be told not to begin it.
    is_queued: bool = False

    @property
    def summary(self) -> str:
        verb = "was lost" if self.status == AttemptStatus.LOST else "failed"
        return f"attempt {self.row['attempt_no']} {verb}: {self.error.message}"

    @property
    def is_replaced(self) -> bool:
        policy = sql.policy(self.row["policy"])
        return self.status == AttemptStatus.LOST and policy.replaces_lost(losses=self.row["losses"] + 1)

    @property
    def is_retried(self) -> bool:
        policy = sql.policy(self.row["policy"])
        has_failed = self.status != AttemptStatus.LOST
        return has_failed and policy.tries_again(failures=self.row["failures"] + 1, code=self.error.code)

    @property
    def final_error(self) -> TaskError:
        """What the task says when nothing follows."""
        if self.status != AttemptStatus.LOST:
            return self.error
        code = DELIVERED_TOO_OFTEN if self.error.code == DELIVERED_TOO_OFTEN else LOST
        times = self.row["losses"] + 1
        count = "once" if times == 1 else f"{times} times"
        return TaskError(code=code, message=f"the task was lost {count}; the last time: {self.error.message}")


def record_setbacks(setbacks: Sequence[Setback], moved: Moved, *, now: datetime, draw: Draw) -> None:
    """End these attempts, and open, plan or give up what their tasks' policies say, in the caller's transaction."""
    if not setbacks:
        return
    _end_attempts(setbacks, now)
    moved.has_withdrawn |= any(setback.is_queued for setback in setbacks)
    _replace([setback for setback in setbacks if setback.is_replaced], moved, now)
    _retry([setback for setback in setbacks if setback.is_retried], now, draw)
    _give_up([setback for setback in setbacks if not setback.is_replaced and not setback.is_retried], moved, now)


def _end_attempts(setbacks: Sequence[Setback], now: datetime) -> None:
    at = sql.time(now)
    sql.execute_many(
        """UPDATE pipelines_attempt SET status = %s, error = %s, finished_at = %s, is_queued = %s,
           lease_until = CASE WHEN %s THEN NULL ELSE lease_until END,
           confirmed_at = COALESCE(confirmed_at, %s) WHERE number = %s""",
        [
            (
                setback.status.value,
                strict_json.dumps(setback.error.to_wire()),
                at,
                setback.is_queued,
                # Set again when somebody has answered for it.
                setback.status == AttemptStatus.LOST,
                at,
                setback.row["attempt_number"],
            )
            for setback in setbacks
        ],
    )


def _replace(setbacks: Sequence[Setback], moved: Moved, now: datetime) -> None:
    sql.execute_many(
        "UPDATE pipelines_task SET losses = losses + 1, started_at = NULL WHERE number = %s",
        [(setback.row["task_number"],) for setback in setbacks],
    )
    # As the one before was sent: what a publisher has put in place of the task's own is in it.
    tasks = [
        NextTask(setback.row, setback.row["context"], setback.row["data"], reason=setback.summary)
        for setback in setbacks
    ]
    moved.intents += open_attempts(tasks, now=now, by=PUBLISHER)


def _retry(setbacks: Sequence[Setback], now: datetime, draw: Draw) -> None:
    due = [(setback, now + _pause(setback, draw)) for setback in setbacks]
    sql.execute_many(
        """UPDATE pipelines_task SET status = 'pending', failures = failures + 1, retry_at = %s, published_at = NULL,
           started_at = NULL WHERE number = %s""",
        [(sql.time(at), setback.row["task_number"]) for setback, at in due],
    )
    write_changes([_retry_change(setback, at) for setback, at in due], at=now)


def _pause(setback: Setback, draw: Draw) -> timedelta:
    # From nothing up to the longest, so that those that failed together don't come back together.
    longest_s = sql.policy(setback.row["policy"]).longest_pause_s(setback.row["failures"] + 1)
    return timedelta(seconds=draw() * longest_s)


def _retry_change(setback: Setback, at: datetime) -> Change:
    reason = f"{setback.summary}; the next one is due at {at:%Y-%m-%d %H:%M:%S} UTC"
    return task_change(setback.row, TaskStatus.PENDING, by=setback.by, reason=reason)


def _give_up(setbacks: Sequence[Setback], moved: Moved, now: datetime) -> None:
    sql.execute_many(
        """UPDATE pipelines_task SET status = 'failed', error = %s, finished_at = %s, failures = failures + %s,
           losses = losses + %s WHERE number = %s""",
        [
            (
                strict_json.dumps(setback.final_error.to_wire()),
                sql.time(now),
                int(setback.status != AttemptStatus.LOST),
                int(setback.status == AttemptStatus.LOST),
                setback.row["task_number"],
            )
            for setback in setbacks
        ],
    )
    write_changes(
        [
            task_change(setback.row, TaskStatus.FAILED, by=setback.by, reason=setback.final_error.message)
            for setback in setbacks
        ],
        at=now,
    )
    moved.ended_tasks += [setback.row["task_number"] for setback in setbacks]
    end_runs([setback.row["run_number"] for setback in setbacks], RunStatus.FAILED, now=now)
