"""The documents that the API answers with. Tokens and inputs of attempts are in none of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from ninja import Field, Schema

from shepherd.errors import Fault
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.pipelines.projects import Project
from shepherd.pipelines.queries import CatalogueEntry, LogEntry, LogPage, RunDetail, RunPage, RunSummary


def duration_s(started_at: datetime | None, finished_at: datetime | None) -> float | None:
    return None if started_at is None or finished_at is None else (finished_at - started_at).total_seconds()


class FaultOut(Schema):
    path: str = Field(description="As in `transformers_list[0].order_no`; empty for the whole document.")
    reason: str


class ErrorBody(Schema):
    code: str = Field(description="Stable, for programs: `invalid_input`, `not_found`, `conflict`, `unavailable` …")
    message: str = Field(description="For people.")
    faults: list[FaultOut] = Field(description="Every field at fault; empty when the fault isn't in the input.")


class ErrorOut(Schema):
    error: ErrorBody


class TaskError(Schema):
    code: str
    message: str
    traceback: str = ""
    retryable: bool = False


class AttemptOut(Schema):
    attempt: int = Field(description="Counts from 1 within the task.")
    status: str = Field(description="`published`, `running`, `succeeded`, `failed`, `lost` or `withdrawn`.")
    worker: str = Field(description="Who executes or executed it; empty until known.")
    context: Any = Field(description="The context that it was sent with.")
    published_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None
    error: TaskError | None

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptOut":
        return cls(
            attempt=attempt.attempt_no,
            status=attempt.status,
            worker=attempt.worker,
            context=attempt.context,
            published_at=attempt.published_at,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            duration_s=duration_s(attempt.started_at, attempt.finished_at),
            error=attempt.error,
        )


class TaskBrief(Schema):
    id: UUID
    order_no: int
    name: str
    status: str = Field(description="`pending`, `published`, `running`, `succeeded`, `failed` or `cancelled`.")


class TaskOut(TaskBrief):
    context: Any = Field(description="As it was sent.")
    result: Any = Field(
        description="What it returned: `{'inline': …}`, or `{'claim': {uri, sha256, size, media_type}}` for data in "
        "the store; null until it has succeeded."
    )
    error: TaskError | None = Field(description="Of its last failed attempt.")
    attempts: list[AttemptOut]
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None = Field(description="Seconds between its start and its end; null until it has ended.")

    @classmethod
    def of(cls, task: Task) -> "TaskOut":
        return cls(
            id=task.id,
            order_no=task.order_no,
            name=task.name,
            status=task.status,
            context=task.context,
            result=task.result,
            error=task.error,
            attempts=[AttemptOut.of(attempt) for attempt in task.attempts.all()],
            published_at=task.published_at,
            started_at=task.started_at,
            finished_at=task.finished_at,
            duration_s=duration_s(task.started_at, task.finished_at),
        )


class PrefectOut(Schema):
    flow_run_id: UUID | None
    url: str | None
    state: str = Field(description="`waiting`, `open`, `done`, or `absent` where Prefect didn't follow.")
    note: str = Field(description="Why it didn't; empty otherwise.")


class RunBrief(Schema):
    id: UUID
    number: int = Field(description="For people; also the order of acceptance.")
    pipeline_name: str
    project: str
    data_url: str
    status: str = Field(description="`accepted`, `running`, `succeeded`, `failed` or `cancelled`.")
    reason: str | None = Field(description="Why it waits, in one sentence; null when it doesn't.")
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None = Field(description="Seconds between its start and its end; null until it has ended.")

    @staticmethod
    def fields_of(run: Run, *, reason: str | None) -> dict[str, Any]:
        return {
            "id": run.id,
            "number": run.number,
            "pipeline_name": run.pipeline_name,
            "project": run.project,
            "data_url": run.data_url,
            "status": run.status,
            "reason": reason,
            "accepted_at": run.accepted_at,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "duration_s": duration_s(run.started_at, run.finished_at),
        }


class RunListed(RunBrief):
    tasks: list[TaskBrief]

    @classmethod
    def of(cls, summary: RunSummary) -> "RunListed":
        tasks = [
            TaskBrief(id=task.id, order_no=task.order_no, name=task.name, status=task.status) for task in summary.tasks
        ]
        return cls(**cls.fields_of(summary.run, reason=summary.reason), tasks=tasks)


class RunPageOut(Schema):
    runs: list[RunListed] = Field(description="The newest first.")
    next_before: int | None = Field(description="What `before` must be for the next page; null on the last one.")

    @classmethod
    def of(cls, page: RunPage) -> "RunPageOut":
        return cls(runs=[RunListed.of(summary) for summary in page.runs], next_before=page.next_before)


class RunOut(RunBrief):
    accepted_by: str | None
    error: TaskError | None = Field(description="Why it failed, when no task's error says so.")
    prefect: PrefectOut
    tasks: list[TaskOut]

    @classmethod
    def of(cls, detail: RunDetail) -> "RunOut":
        return cls(**cls.all_fields_of(detail))

    @classmethod
    def all_fields_of(cls, detail: RunDetail) -> dict[str, Any]:
        run = detail.run
        return {
            **cls.fields_of(run, reason=detail.reason),
            "accepted_by": run.accepted_by.get_username() if run.accepted_by else None,
            "error": run.error,
            "prefect": PrefectOut(
                flow_run_id=run.prefect_flow_run_id,
                url=detail.prefect_url,
                state=run.prefect_state,
                note=run.prefect_note,
            ),
            "tasks": [TaskOut.of(task) for task in detail.tasks],
        }


class AcceptedOut(RunOut):
    warnings: list[FaultOut] = Field(description="What may keep the run from ending well, although it was accepted.")

    @classmethod
    def of_accepted(cls, detail: RunDetail, warnings: Iterable[Fault]) -> "AcceptedOut":
        told = [FaultOut(path=warning.path, reason=warning.reason) for warning in warnings]
        return cls(**cls.all_fields_of(detail), warnings=told)


class LogLineOut(Schema):
    task: str
    order_no: int
    task_id: UUID
    attempt: int
    n: int = Field(description="Counts from 1 within the attempt; a gap is a lost line.")
    at: datetime = Field(description="By the worker's clock.")
    level: str
    text: str

    @classmethod
    def of(cls, entry: LogEntry) -> "LogLineOut":
        line, task = entry.line, entry.task
        return cls(
            task=task.name,
            order_no=task.order_no,
            task_id=task.id,
            attempt=entry.attempt.attempt_no,
            n=line.n,
            at=line.at,
            level=line.level,
            text=line.text,
        )


class LogPageOut(Schema):
    lines: list[LogLineOut] = Field(description="In the order of their arrival.")
    next_after: int = Field(description="What `after` must be to go on from here.")
    is_last: bool = Field(description="True when the run has ended and nothing follows.")

    @classmethod
    def of(cls, page: LogPage) -> "LogPageOut":
        lines = [LogLineOut.of(entry) for entry in page.entries]
        return cls(lines=lines, next_after=page.next_after, is_last=page.is_last)


class ProjectOut(Schema):
    name: str
    has_flow: bool = Field(description="True when its `flow.py` holds publishers of its own.")

    @classmethod
    def of(cls, project: Project) -> "ProjectOut":
        return cls(name=project.key, has_flow=project.flow_file is not None)


class ServingOut(Schema):
    worker: str
    host: str
    slots: int
    free_slots: int


class CatalogueOut(Schema):
    name: str
    description: str = Field(description="The docstring of the task's function.")
    context_schema: Any = Field(description="JSON Schema 2020-12 of the context, as announced last.")
    data: str = Field(description="What it wants as its input, as in `polars.LazyFrame`; empty when it takes none.")
    is_served: bool = Field(description="True when a worker of this name is there now.")
    last_seen_at: datetime
    workers: list[ServingOut]

    @classmethod
    def of(cls, entry: CatalogueEntry) -> "CatalogueOut":
        return cls(
            name=entry.name,
            description=entry.description,
            context_schema=entry.context_schema,
            data=entry.data,
            is_served=entry.availability.workers > 0,
            last_seen_at=entry.availability.last_seen_at,
            workers=[
                ServingOut(worker=seen.worker, host=seen.host, slots=seen.slots, free_slots=seen.free_slots)
                for seen in entry.workers
            ],
        )
