"""What people may do with a run after it was accepted: cancel it, resume it, run it again.

Each may be asked for again, by anybody, at any time: what is so already stays so, and of two at once one wins.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from shepherd.errors import ConflictError
from shepherd.pipelines import sql, wakeup
from shepherd.pipelines.acceptance import Accepted
from shepherd.pipelines.again import run_again
from shepherd.pipelines.changes import Change, write_changes
from shepherd.pipelines.corrections import corrected_tasks
from shepherd.pipelines.models import Task
from shepherd.pipelines.standing import OvertakenError, Standing, StoppedTask, hold, look, settled
from shepherd.pipelines.starting import following_state
from shepherd.wire import strict_json

_RESUMABLE: Final = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})


def cancel(number: int, *, by: User, now: datetime, reason: str = "") -> None:
    """End a run now, with the task that it is at; those after it stay pending.

    Its attempt is withdrawn, and the Task Publisher woken, which tells the workers to kill it. A run that was cancelled
    before stays as it is.

    Raises:
        NotFoundError: There is no such run.
        ConflictError: It has ended otherwise; the text says how.
    """

    def step() -> None:
        with transaction.atomic():
            standing = hold(number)
            if standing.status == RunStatus.CANCELLED:
                return
            if standing.status in ENDED_RUN:
                raise ConflictError(f"run {number} has {_ended(standing)} already: nothing is left to cancel")
            _cancel(standing, by=by.get_username(), reason=reason, now=now)
            transaction.on_commit(wakeup.wake, robust=True)

    settled(step)


def resume(number: int, *, contexts: Mapping[str, Any], by: User, now: datetime) -> None:
    """Go on with a failed or cancelled run at the task where it stopped; what succeeded isn't repeated.

    `contexts` go in place of those of tasks that have not succeeded (see `corrected_tasks`). A run that is under way
    stays as it is.

    Raises:
        NotFoundError: There is no such run.
        ConflictError: It has succeeded; or it is under way, and contexts were given.
        InvalidInputError: A context can't be taken. Nothing is changed.
    """

    def step() -> None:
        status = look(number).status
        if status not in _RESUMABLE:
            _check_under_way(number, status, contexts)
            return
        tasks = list(Task.objects.filter(run_id=number).order_by("position"))
        # Outside of the transaction: schemas may take a second to check.
        corrected = corrected_tasks(tasks, contexts, keeps_succeeded=True, now=now)
        with transaction.atomic():
            standing = hold(number)
            if standing.status != status:
                raise OvertakenError
            _correct({tasks[position].number: context for position, context in corrected.items()})
            _resume(standing, by=by.get_username(), now=now)
            transaction.on_commit(wakeup.wake, robust=True)

    settled(step)


def rerun(
    number: int,
    *,
    contexts: Mapping[str, Any],
    by: User,
    now: datetime,
    sample_rows: int | None = None,
    idempotency_key: str | None = None,
    body_sha256: str = "",
) -> Accepted:
    """Accept the same pipeline again, as a new run that names this one as its origin: see `run_again`."""
    return run_again(
        number,
        labels={},
        contexts=contexts,
        by=by,
        now=now,
        sample_rows=sample_rows,
        idempotency_key=idempotency_key,
        # One key belongs to one call, whichever of them that was.
        body_sha256=body_sha256,
    )


def _ended(standing: Standing) -> str:
    if standing.status == RunStatus.FAILED and standing.task is not None:
        return f"failed at {standing.task.name!r}"
    return standing.status.value


def _cancel(standing: Standing, *, by: str, reason: str, now: datetime) -> None:
    at = sql.time(now)
    if standing.attempts:
        # Queued, even if a worker has claimed it: that one has yet to be told, too.
        sql.execute(
            f"""UPDATE pipelines_attempt SET status = 'withdrawn', finished_at = %s, is_queued = TRUE
                WHERE number IN {sql.places(standing.attempts)} AND status IN ('published', 'running')""",
            [at, *standing.attempts],
        )
    changes = []
    if standing.task is not None:
        _change_task(standing.task, "status = 'cancelled', finished_at = %s, retry_at = NULL", [at])
        changes.append(_task_change(standing.number, standing.task, TaskStatus.CANCELLED, by, reason))
    _change_run(standing, "status = 'cancelled', finished_at = %s", [at])
    changes.append(Change(standing.number, None, None, standing.status, RunStatus.CANCELLED, by, reason))
    write_changes(changes, at=now)


def _check_under_way(number: int, status: RunStatus, contexts: Mapping[str, Any]) -> None:
    if status == RunStatus.SUCCEEDED:
        raise ConflictError(f"run {number} has succeeded: there is nothing to resume; it can be run again")
    if contexts:
        raise ConflictError(f"run {number} is {status} already: its contexts can't be changed now")


def _correct(contexts: Mapping[int, Mapping[str, Any]]) -> None:
    sql.execute_many(
        "UPDATE pipelines_task SET corrected_context = %s WHERE number = %s AND status <> 'succeeded'",
        [(strict_json.dumps(context), number) for number, context in contexts.items()],
    )


def _resume(standing: Standing, *, by: str, now: datetime) -> None:
    # One that never began goes back to where it was: it waits for its turn, and for its project.
    after = RunStatus.RUNNING if standing.has_started else RunStatus.ACCEPTED
    changes = [Change(standing.number, None, None, standing.status, after, by, "resumed")]
    task = standing.task
    if task is not None:
        _change_task(
            task,
            """status = 'pending', failures = 0, losses = 0, retry_at = %s, error = NULL, published_at = NULL,
               started_at = NULL, finished_at = NULL""",
            [sql.time(now) if _is_relays(standing) else None],
        )
        if task.status != TaskStatus.PENDING:
            changes.insert(0, _task_change(standing.number, task, TaskStatus.PENDING, by, "resumed"))
    # A flow that still looks after the ended run has a former epoch from here on: nothing that it writes counts.
    _change_run(
        standing,
        """status = %s, error = NULL, finished_at = NULL, prefect_state = %s, prefect_note = %s,
           prefect_flow_run_id = NULL, owner = '', owner_epoch = owner_epoch + 1, owned_until = NULL,
           stood_still_s = stood_still_s + %s""",
        [after.value, *following_state(settings.SHEPHERD.is_prefect_on), _stood_still_s(standing, now)],
    )
    write_changes(changes, at=now)


def _stood_still_s(standing: Standing, now: datetime) -> float:
    """Return for how long a run was over that had begun; the clock may have been put back since."""
    if not standing.has_started or standing.finished_at is None:
        return 0.0
    return max(0.0, (now - standing.finished_at).total_seconds())


def _is_relays(standing: Standing) -> bool:
    """Return whether the relay may open the next attempt at once: no data to fetch, no publisher to ask."""
    task = standing.task
    return task is not None and standing.has_started and standing.has_data and not task.is_flows


def _change_task(task: StoppedTask, changes: str, values: list[Any]) -> None:
    statement = f"UPDATE pipelines_task SET {changes} WHERE number = %s AND status = %s"
    if sql.changed(statement, [*values, task.number, task.status]) != 1:
        raise OvertakenError


def _change_run(standing: Standing, changes: str, values: list[Any]) -> None:
    statement = f"UPDATE pipelines_run SET {changes} WHERE number = %s AND status = %s"
    if sql.changed(statement, [*values, standing.number, standing.status.value]) != 1:
        raise OvertakenError


def _task_change(run_number: int, task: StoppedTask, after: TaskStatus, by: str, reason: str) -> Change:
    return Change(run_number, task.number, task.attempt_no or None, task.status, after, by, reason)
