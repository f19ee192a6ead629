"""What must be true of every database, of every step that changes one, and of every message that is published."""

from collections.abc import Iterator, Sequence
from typing import Any

from shepherd.domain.status import ENDED_RUN, UNFINISHED_ATTEMPT, UNFINISHED_TASK, AttemptStatus, RunStatus, TaskStatus
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskEnvelope
from tests.model.rows import Audit, Rows


def rows_faults(rows: Rows) -> Iterator[str]:
    """Yield what is wrong with a database, whatever led to it."""
    run, tasks, attempts = rows.run(), rows.each_task(), rows.each_attempt()
    for before, task in zip([None, *tasks], tasks, strict=False):
        own = [attempt for attempt in attempts if attempt["task_id"] == task["number"]]
        yield from _task_faults(task, own)
        if own and before is not None and before["status"] != TaskStatus.SUCCEEDED:
            yield f"task {task['position']} has an attempt, and the one before it has not succeeded"
    yield from _run_faults(run, tasks)


def _task_faults(task: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> Iterator[str]:
    name = f"task {task['position']}"
    succeeded = [attempt for attempt in attempts if attempt["status"] == AttemptStatus.SUCCEEDED]
    unfinished = [attempt for attempt in attempts if attempt["status"] in UNFINISHED_ATTEMPT]
    if (len(succeeded) == 1) != (task["status"] == TaskStatus.SUCCEEDED) or len(succeeded) > 1:
        yield f"{name} is {task['status']} with {len(succeeded)} attempts that succeeded"
    if (len(unfinished) == 1) != (task["status"] in UNFINISHED_TASK) or len(unfinished) > 1:
        yield f"{name} is {task['status']} with {len(unfinished)} unfinished attempts"
    if any(attempt["attempt_no"] != task["attempt_no"] for attempt in unfinished):
        yield f"an attempt at {name} is unfinished that isn't the latest"
    if len(attempts) != task["attempt_no"]:
        yield f"{name} has {len(attempts)} attempts, and says {task['attempt_no']}"
    if succeeded and strict_json.loads(task["result"]) != {"inline": succeeded[0]["token"]}:
        yield f"{name} has the result {task['result']}, and {succeeded[0]['token']} has succeeded"


def _run_faults(run: dict[str, Any], tasks: Sequence[dict[str, Any]]) -> Iterator[str]:
    statuses = [task["status"] for task in tasks]
    is_over = run["status"] in ENDED_RUN
    if (run["status"] == RunStatus.SUCCEEDED) != all(status == TaskStatus.SUCCEEDED for status in statuses):
        yield f"the run is {run['status']} with the tasks {statuses}"
    if is_over and any(status in UNFINISHED_TASK for status in statuses):
        yield f"the run is {run['status']} with an unfinished task: {statuses}"
    if run["status"] == RunStatus.FAILED and TaskStatus.FAILED not in statuses and run["error"] is None:
        yield "the run has failed, and nothing says why"


def step_faults(before: Rows, after: Rows, audit: Sequence[Audit]) -> Iterator[str]:
    """Yield what a step must not have done: changed what was recorded, or a status without saying so."""
    for old, new in zip(before.each_task(), after.each_task(), strict=True):
        if old["status"] == TaskStatus.SUCCEEDED and (old["status"], old["result"]) != (new["status"], new["result"]):
            yield f"the result of task {old['position']} was {old['result']}, and is {new['status']} {new['result']}"
        yield from _audit_faults(f"task {old['position']}", old, new, _of(audit, old["position"]))
    yield from _stale_faults(before, after)
    yield from _audit_faults("the run", before.run(), after.run(), _of(audit, None))


def _stale_faults(before: Rows, after: Rows) -> Iterator[str]:
    """Yield successes of attempts in whose place another one had been claimed."""
    succeeded = after.tokens(AttemptStatus.SUCCEEDED) - before.tokens(AttemptStatus.SUCCEEDED)
    for winner in (attempt for attempt in after.each_attempt() if attempt["token"] in succeeded):
        for other in before.each_attempt():
            is_later = other["task_id"] == winner["task_id"] and other["attempt_no"] > winner["attempt_no"]
            if is_later and other["status"] in UNFINISHED_ATTEMPT and other["claimed_at"] is not None:
                yield f"{winner['token']} was recorded although {other['token']} had been claimed"


def history_faults(rows: Rows, audit: Sequence[Audit]) -> Iterator[str]:
    """Yield where all the changes that were ever written down don't lead to a database."""
    for task in rows.each_task():
        first = {"status": TaskStatus.PENDING}
        yield from _audit_faults(f"task {task['position']}", first, task, _of(audit, task["position"]))
    yield from _audit_faults("the run", {"status": ""}, rows.run(), _of(audit, None))


def _of(audit: Sequence[Audit], position: int | None) -> list[Audit]:
    return [change for change in audit if change.position == position]


def _audit_faults(name: str, old: dict[str, Any], new: dict[str, Any], audit: Sequence[Audit]) -> Iterator[str]:
    status = old["status"]
    for change in audit:
        if change.before != status:
            yield f"{name} was {status}, and a change of it says {change.before}"
        status = change.after
    if status != new["status"]:
        yield f"{name} is {new['status']}, and the changes that were written down lead to {status}"


def publishing_faults(committed: Rows, envelope: TaskEnvelope) -> Iterator[str]:
    """Yield what is wrong with a message at the moment in which it is published."""
    tasks = committed.each_task()
    found = [attempt for attempt in committed.each_attempt() if attempt["token"] == envelope.token]
    if not found:
        yield f"{envelope.name} was published before the intent was committed"
    place = next(place for place, task in enumerate(tasks) if task["name"] == envelope.name)
    before = tasks[place - 1] if place else None
    if before is None:
        return
    if before["status"] != TaskStatus.SUCCEEDED:
        yield f"{envelope.name} was published before the success of {before['name']} was committed"
    elif envelope.data.to_wire() != strict_json.loads(before["result"]):
        yield f"{envelope.name} was published with {envelope.data}, and {before['name']} returned {before['result']}"
