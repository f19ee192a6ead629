"""What Prefect's API is told of a run and its tasks: its documents, made of rows alone.

The times of a task run are the task's own. A flow run's are Prefect's clock: its API takes none, so that a run which
is told when it is over says its own in the message of its state.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from shepherd.pipelines.models import Run, Task

Document = dict[str, Any]

#: Characters that Prefect refuses in a name.
_BANNED: Final = str.maketrans("/%&><", "_____")
#: As types of Prefect's states; their names are the same words.
_OF_RUN: Final = {
    RunStatus.RUNNING: "RUNNING",
    RunStatus.SUCCEEDED: "COMPLETED",
    RunStatus.FAILED: "FAILED",
    RunStatus.CANCELLED: "CANCELLED",
}
_OF_TASK: Final = {
    TaskStatus.PUBLISHED: "PENDING",
    TaskStatus.RUNNING: "RUNNING",
    TaskStatus.SUCCEEDED: "COMPLETED",
    TaskStatus.FAILED: "FAILED",
    TaskStatus.CANCELLED: "CANCELLED",
}
FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
#: Prefect takes a task run's later state for news, and one of the same time for the same.
_NEXT: Final = timedelta(microseconds=1)
#: Prefect's server refuses an event of 1.5 MB.
_MESSAGE_LIMIT: Final = 10_000


def flow_name(pipeline_name: str) -> str:
    return pipeline_name.translate(_BANNED)


def flow_run(run: Run, *, flow_id: str, state: Document) -> Document:
    """Return what makes a run's flow run, or finds it: the key lets Prefect make one of them, however often asked."""
    return {
        "flow_id": flow_id,
        "name": f"run-{run.number}",
        "idempotency_key": str(run.id),
        "parameters": {"run": run.number},
        "tags": [f"shepherd:{run.id}", f"project:{run.project}"],
        "state": state,
    }


def run_state(run: Run, tasks: Sequence[Task]) -> Document:
    status = RunStatus(run.status)
    message = "" if status not in ENDED_RUN else _times(run)
    if status == RunStatus.FAILED:
        message = f"{_reason(run, tasks)} ({message})"
    return _state(_OF_RUN[status], message)


def is_shown(task: Task) -> bool:
    """Return whether a task has a task run: not before it was published, or ended in its publisher's hands."""
    return task.published_at is not None or task.status == TaskStatus.FAILED


def task_run_event(run: Run, task: Task, *, after: Task | None, flow_run_id: UUID) -> Document:
    """Return the event from which Prefect's server makes or moves a task run. Told twice, it changes nothing."""
    type_, times = _task_state(run, task), _task_times(run, task)
    message = _text((task.error or {}).get("message", "")) if type_ == "FAILED" else ""
    state = {**_state(type_, message), "data": None}
    at = times[type_].isoformat()
    return {
        "id": str(uuid5(task.id, f"{task.attempt_no} {type_}")),
        "occurred": at,
        "event": f"prefect.task-run.{state['name']}",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task.id}",
            "prefect.resource.name": task.name,
            "prefect.run-count": str(task.attempt_no),
            "prefect.state-name": state["name"],
            "prefect.state-type": type_,
            "prefect.state-message": message,
            "prefect.state-timestamp": at,
            # Else the server takes it for an echo of its own, and records nothing.
            "prefect.orchestration": "client",
        },
        "related": [_role("flow-run", f"prefect.flow-run.{flow_run_id}", f"run-{run.number}")],
        "payload": {
            "intended": {"from": None, "to": type_},
            "initial_state": None,
            "validated_state": state,
            "task_run": _task_run(task, times, after=after, is_over=type_ in FINAL),
        },
    }


def within(flow_run_ids: Iterable[UUID]) -> Document:
    """Return what finds the task runs of flow runs."""
    return {"flow_runs": {"id": {"any_": [str(each) for each in flow_run_ids]}}}


def ended_in(flow_run_ids: Iterable[UUID]) -> Document:
    return {**within(flow_run_ids), "task_runs": {"state": {"type": {"any_": sorted(FINAL)}}}}


def change(state: Document) -> Document:
    """Return what brings a run of Prefect's into a state, whatever it was in."""
    return {"state": state, "force": True}


def pending() -> Document:
    return _state("PENDING", "")


def crashed() -> Document:
    return _state("CRASHED", "its Task Publisher ended")


def _state(type_: str, message: str) -> Document:
    return {"type": type_, "name": type_.capitalize(), "message": message, "state_details": {}}


def _role(role: str, id_: str, name: str) -> Document:
    return {"prefect.resource.id": id_, "prefect.resource.role": role, "prefect.resource.name": name}


def _times(run: Run) -> str:
    begun, ended = run.started_at or run.accepted_at, run.finished_at or run.accepted_at
    return f"from {begun:%Y-%m-%d %H:%M:%S} to {ended:%Y-%m-%d %H:%M:%S} UTC, {(ended - begun).total_seconds():.1f} s"


def _reason(run: Run, tasks: Sequence[Task]) -> str:
    if run.error:
        return _text(run.error.get("message", ""))
    failed = next((task for task in tasks if task.status == TaskStatus.FAILED), None)
    return _text(f"{failed.name}: {(failed.error or {}).get('message', '')}") if failed else "failed"


def _text(message: Any) -> str:
    return str(message)[:_MESSAGE_LIMIT]


def _task_state(run: Run, task: Task) -> str:
    # Whoever ended the run has withdrawn what was still under way.
    is_left_over = run.status in ENDED_RUN and task.status in {TaskStatus.PUBLISHED, TaskStatus.RUNNING}
    return _OF_TASK[TaskStatus.CANCELLED if is_left_over else TaskStatus(task.status)]


def _task_times(run: Run, task: Task) -> dict[str, datetime]:
    """Return when a task came into each state of Prefect's, each later than the one before."""
    pending = task.published_at or task.finished_at or run.started_at or run.accepted_at
    running = max(task.started_at or pending, pending + _NEXT)
    ended = max(task.finished_at or run.finished_at or running, running + _NEXT)
    return {"PENDING": pending, "RUNNING": running, **dict.fromkeys(FINAL, ended)}


def _task_run(task: Task, times: dict[str, datetime], *, after: Task | None, is_over: bool) -> Document:
    about: Document = {
        "name": task.name,
        "task_key": task.name,
        "dynamic_key": str(task.position),
        "run_count": task.attempt_no,
        "expected_start_time": times["PENDING"].isoformat(),
        # What the graph in Prefect's pages draws its arrows from.
        "task_inputs": {"data": [{"input_type": "task_run", "id": str(after.id)}] if after else []},
    }
    if task.started_at is not None or is_over:
        about["start_time"] = times["RUNNING"].isoformat()
    if is_over:
        about["end_time"] = times["COMPLETED"].isoformat()
        about["total_run_time"] = (times["COMPLETED"] - times["RUNNING"]).total_seconds()
    return about
