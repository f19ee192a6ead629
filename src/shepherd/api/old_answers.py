"""What callers of the old endpoints are told, in the words that they know."""

from typing import Any, Final

from django.urls import reverse

from shepherd.api.old_form import form_fields
from shepherd.domain.status import RunStatus, TaskStatus
from shepherd.pipelines.queries import CatalogueEntry, Outline, TaskOutline
from shepherd.wire.value import ClaimCheck

_RUN_WORDS: Final = {
    RunStatus.ACCEPTED: "Created",
    RunStatus.RUNNING: "In Progress",
    RunStatus.SUCCEEDED: "Done",
    RunStatus.FAILED: "Failed",
    RunStatus.CANCELLED: "Failed",
}
#: The old system had no word for a task that is under way.
_TASK_WORDS: Final = {
    TaskStatus.PENDING: "Created",
    TaskStatus.PUBLISHED: "Created",
    TaskStatus.RUNNING: "Created",
    TaskStatus.SUCCEEDED: "Done",
    TaskStatus.FAILED: "Failed",
    TaskStatus.CANCELLED: "Failed",
}


def listed_pipeline(run: Outline) -> dict[str, Any]:
    return {
        "date": run.accepted_at,
        "status": _RUN_WORDS[RunStatus(run.status)],
        "name": run.pipeline_name,
        "pipeline": [
            {"name": task.name, "step": task.order_no, "status": _status(task), "result": _result(run, task)}
            for task in run.tasks
        ],
    }


def full_pipeline(run: Outline) -> dict[str, Any]:
    return {
        "pipeline_id": run.number,
        "pipeline_name": run.pipeline_name,
        "project": run.project,
        "data_url": run.data_url,
        "status": _RUN_WORDS[RunStatus(run.status)],
        "created_at": run.accepted_at,
        "dataset_id": run.labels.get("dataset_id"),
        "resource_id": run.labels.get("resource_identifier"),
        "resultant_res_id": run.labels.get("resultant_res_id"),
        "db_action": run.labels.get("db_action"),
        "error_message": _error_message(run),
        "tasks": [_full_task(run, task) for task in run.tasks],
    }


def transformer(entry: CatalogueEntry) -> dict[str, Any]:
    return {"name": entry.name, "context": form_fields(entry.context_schema)}


def _full_task(run: Outline, task: TaskOutline) -> dict[str, Any]:
    result = _result(run, task)
    return {
        "task_id": task.number,
        "task_name": task.name,
        "order_no": task.order_no,
        "context": task.context,
        "status": _status(task),
        "created_at": run.accepted_at,
        "result": result,
        "result_url": result if isinstance(task.result, ClaimCheck) or task.is_result_too_long else "",
        "error_message": _message(task.error),
    }


def _status(task: TaskOutline) -> str:
    return _TASK_WORDS[TaskStatus(task.status)]


def _result(run: Outline, task: TaskOutline) -> Any:
    """Return a small value itself; of data the address in the store; of a longer value that of the whole run."""
    if task.is_result_too_long:
        return reverse("api:run", args=[run.number])
    if task.result is None:
        return None
    return task.result.uri if isinstance(task.result, ClaimCheck) else task.result.value


def _error_message(run: Outline) -> str:
    messages = [_message(run.error), *(_message(task.error) for task in run.tasks if task.status == TaskStatus.FAILED)]
    return next(filter(None, messages), "")


def _message(error: dict[str, Any] | None) -> str:
    return "" if error is None else str(error.get("message", ""))
