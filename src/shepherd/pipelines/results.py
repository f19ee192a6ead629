"""What one task returned, found as a caller names it."""

import uuid
from dataclasses import dataclass
from typing import Any

from shepherd.domain.status import TaskStatus
from shepherd.errors import ConflictError, NotFoundError
from shepherd.pipelines.models import Task
from shepherd.wire.value import Value, parse_value


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The result of a task that has succeeded."""

    task: Task
    value: Value
    #: What its worker says of it; None where it says nothing, as of what travels inline.
    card: dict[str, Any] | None


def one_result(run_number: int, reference: str) -> TaskResult:
    """Return the result of the task of a run that a caller means by its UUID, `order_no` or name.

    Raises:
        NotFoundError: The run has no such task.
        ConflictError: It has several of this order_no or name; or this one has not succeeded, so there is no result.
    """
    tasks = Task.objects.filter(run=run_number).only("id", "number", "order_no", "name", "status").order_by("position")
    task = _meant(list(tasks), run_number, reference)
    if task.status != TaskStatus.SUCCEEDED:
        raise ConflictError(f"task {task.name} of run {run_number} is {task.status}: it has returned nothing yet")
    found = Task.objects.get(number=task.number)
    return TaskResult(task=found, value=parse_value(found.result, path="result"), card=found.card)


def _meant(tasks: list[Task], run_number: int, reference: str) -> Task:
    by_id = [task for task in tasks if task.id == _as_uuid(reference)]
    meant = by_id or [task for task in tasks if reference in {str(task.order_no), task.name}]
    if not meant:
        there = ", ".join(f"{task.order_no} ({task.name})" for task in tasks[:20])
        raise NotFoundError(f"run {run_number} has no task {reference[:100]!r}; it has {there}")
    if len(meant) > 1:
        raise ConflictError(f"run {run_number} has {len(meant)} tasks that {reference[:100]!r} may mean; name its id")
    return meant[0]


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
