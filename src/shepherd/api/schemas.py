"""The documents that the API answers with. Tokens and inputs of attempts are in none of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from ninja import Field, Schema

from shepherd.domain.policy import effective
from shepherd.errors import Fault
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.pipelines.queries import LogEntry, LogPage, RunDetail, RunPage, RunSummary


def duration_s(started_at: datetime | None, finished_at: datetime | None, *, without_s: float = 0.0) -> float | None:
    if started_at is None or finished_at is None:
        return None
    return max(0.0, (finished_at - started_at).total_seconds() - without_s)


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
    claimed_at: datetime | None = Field(
        description="When a worker took it over from RabbitMQ; from then on its heartbeats count."
    )
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
            claimed_at=attempt.claimed_at,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            duration_s=duration_s(attempt.started_at, attempt.finished_at),
            error=attempt.error,
        )


class PolicyOut(Schema):
    retries: int = Field(description="How many attempts may follow a failed one.")
    backoff: float = Field(
        description="Seconds: the longest first pause between two of them; later ones may be longer."
    )
    retry_on_lost: int = Field(description="How many attempts may follow one that was lost with its worker.")
    wait_timeout: float | None = Field(description="Seconds until a worker has begun it; null for no limit.")
    run_timeout: float | None = Field(description="Seconds that one attempt may run; null for no limit.")


class TaskBrief(Schema):
    id: UUID
    order_no: int
    name: str
    status: str = Field(description="`pending`, `published`, `running`, `succeeded`, `failed` or `cancelled`.")


class TaskOut(TaskBrief):
    context: Any = Field(description="As it was sent.")
    corrected_context: Any = Field(description="What a resume put in its place; null where nothing did.")
    policy: PolicyOut = Field(description="What counts for it: of the request, its author, its project, the defaults.")
    failures: int = Field(description="Attempts that failed since it began, or since it was resumed.")
    losses: int = Field(description="Attempts that were lost with their worker, as counted for `failures`.")
    retry_at: datetime | None = Field(description="When its next attempt is due; null unless it waits for one.")
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
            corrected_context=task.corrected_context,
            policy=PolicyOut(**effective(task.policy)),
            failures=task.failures,
            losses=task.losses,
            retry_at=task.retry_at,
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
    sample_rows: int | None = Field(description="On how many first rows it is only tried out; null for all of them.")
    reason: str | None = Field(description="Why it waits, in one sentence; null when it doesn't.")
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None = Field(
        description="Seconds from its start to its end, but for those from an end to a resume; null until it has ended."
    )

    @staticmethod
    def fields_of(run: Run, *, reason: str | None) -> dict[str, Any]:
        return {
            "id": run.id,
            "number": run.number,
            "pipeline_name": run.pipeline_name,
            "project": run.project,
            "data_url": run.data_url,
            "status": run.status,
            "sample_rows": run.sample_rows,
            "reason": reason,
            "accepted_at": run.accepted_at,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "duration_s": duration_s(run.started_at, run.finished_at, without_s=run.stood_still_s),
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
    origin: int | None = Field(description="The number of the run that it repeats; null for one that was submitted.")
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
            "origin": run.origin_id,
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


class ColumnOut(Schema):
    name: str
    type: str = Field(description="As polars calls it.")


class RowsOut(Schema):
    columns: list[ColumnOut]
    rows: list[list[Any]] = Field(description="Each in the order of `columns`.")
    offset: int
    limit: int
    total: int | None = Field(description="How many rows the table has; null where its card doesn't say.")


class LogLineOut(Schema):
    task: str
    order_no: int
    task_id: UUID
    attempt: int
    worker: str = Field(description="Who executed it: an attempt that was delivered again has the lines of both.")
    n: int = Field(description="Counts from 1 within the worker's execution; a gap is a lost line.")
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
            worker=line.worker,
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
