"""What every step of a run's way is made of: the rows it reads, opening what follows, ending what is over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from shepherd.domain.status import RunStatus, TaskStatus
from shepherd.pipelines import sql
from shepherd.pipelines.changes import Change, write_changes
from shepherd.pipelines.filling import filled
from shepherd.pipelines.intents import Intent, NextTask, open_attempts
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskError

#: Who stands behind a change that nobody asked for by name.
PUBLISHER: Final = "task publisher"

_RUN_COLUMNS = """r.number AS run_number, r.id AS run_id, r.project AS project, r.pipeline_name AS pipeline_name,
    r.status AS run_status, r.sample_rows AS sample_rows"""
_TASK_COLUMNS = """t.number AS task_number, t.id AS task_id, t.name AS name, t.order_no AS order_no,
    t.position AS position, t.status AS task_status, t.attempt_no AS task_attempt_no, t.is_led AS is_led,
    t.policy AS policy, t.failures AS failures, t.losses AS losses"""
#: Selects tasks (t) with their runs (r).
TASKS: Final = f"""SELECT {_TASK_COLUMNS}, COALESCE(t.corrected_context, t.context) AS context, {_RUN_COLUMNS}
    FROM pipelines_task t JOIN pipelines_run r ON r.number = t.run_id"""
#: Selects attempts (a) with their tasks (t) and runs (r).
ATTEMPTS: Final = f"""SELECT a.number AS attempt_number, a.token AS token, a.attempt_no AS attempt_no,
    a.status AS attempt_status, a.worker AS worker,
    a.claimed_at AS claimed_at, a.context AS context, a.data AS data, {_TASK_COLUMNS}, {_RUN_COLUMNS}
    FROM pipelines_attempt a
    JOIN pipelines_task t ON t.number = a.task_id
    JOIN pipelines_run r ON r.number = t.run_id"""


@dataclass(slots=True, kw_only=True)
class Moved:
    """What a transaction did, for those who tell others about it."""

    #: How many runs were started.
    started: int = 0
    #: To be published now; already committed.
    intents: list[Intent] = field(default_factory=list)
    #: Tasks that have ended, by number.
    ended_tasks: list[int] = field(default_factory=list)
    #: Runs of which `data_url` is to be fetched, by number.
    to_fetch: dict[int, str] = field(default_factory=dict)
    #: Runs that go on only when a publisher of their project does its part, by number.
    led_runs: list[int] = field(default_factory=list)
    #: How many replies changed nothing: they came second, or for nothing that is known.
    dropped: int = 0
    #: Whether attempts were withdrawn, which workers have to be told.
    has_withdrawn: bool = False
    #: Whether there was as much as one transaction takes, so that there may be more.
    is_full: bool = False


def open_tasks(tasks: Sequence[tuple[Mapping[str, Any], str]], moved: Moved, *, now: datetime) -> None:
    """Open an attempt for each task (a row of `TASKS`, and the JSON text of its input) that no publisher leads."""
    moved.led_runs += [row["run_number"] for row, _ in tasks if row["is_led"]]
    unled = [NextTask(row, row["context"], data) for row, data in tasks if not row["is_led"]]
    open_next(unled, moved, now=now)


def open_next(tasks: Sequence[NextTask], moved: Moved, *, now: datetime) -> None:
    """Open an attempt for each pending task, with its context filled in; one that can't be filled in or sent fails."""
    ready, unfit = filled(tasks, now=now)
    moved.intents += open_attempts([task for task in ready if not task.oversize], now=now, by=PUBLISHER)
    _refuse([*unfit, *((task.row, _too_large(task)) for task in ready if task.oversize)], moved, now=now)


def _too_large(task: NextTask) -> TaskError:
    return TaskError(
        code="too_large", message=f"the task's context with what the one before it returned {task.oversize}"
    )


def _refuse(tasks: Sequence[tuple[Mapping[str, Any], TaskError]], moved: Moved, *, now: datetime) -> None:
    """End tasks that can't be published, and their runs. No retry: the same results would give the same context."""
    sql.execute_many(
        "UPDATE pipelines_task SET status = 'failed', error = %s, finished_at = %s, retry_at = NULL WHERE number = %s",
        [(strict_json.dumps(error.to_wire()), sql.time(now), row["task_number"]) for row, error in tasks],
    )
    changes = []
    for row, error in tasks:
        numbers = (row["run_number"], row["task_number"], row["task_attempt_no"] or None)
        changes.append(Change(*numbers, row["task_status"], TaskStatus.FAILED, PUBLISHER, error.message))
    write_changes(changes, at=now)
    moved.ended_tasks += [row["task_number"] for row, _ in tasks]
    end_runs([row["run_number"] for row, _ in tasks], RunStatus.FAILED, now=now)


def end_runs(numbers: Sequence[int], status: RunStatus, *, now: datetime) -> None:
    if not numbers:
        return
    padded = sql.padded(numbers)
    sql.execute(
        f"""UPDATE pipelines_run SET status = %s, finished_at = %s
            WHERE number IN {sql.places(padded)} AND status = 'running'""",
        [status.value, sql.time(now), *padded],
    )
    write_changes(run_changes(numbers, RunStatus.RUNNING, status), at=now)


def run_changes(numbers: Iterable[int], before: RunStatus, after: RunStatus, *, reason: str = "") -> list[Change]:
    return [Change(number, None, None, before, after, PUBLISHER, reason) for number in numbers]


def task_change(row: Mapping[str, Any], after: str, *, by: str, reason: str = "") -> Change:
    return Change(row["run_number"], row["task_number"], row["attempt_no"], row["task_status"], after, by, reason)
