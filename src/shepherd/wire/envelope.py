"""A task on its way to a worker, and what comes back. `docs/protocol.md` describes them for other languages."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shepherd.errors import ProtocolError
from shepherd.wire.card import parse_card
from shepherd.wire.fields import Fields, encode, format_time, parse_document, readable, typed
from shepherd.wire.value import Value, parse_value


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnvelope:
    """One attempt at one task, on its way to a worker."""

    #: Names the attempt in every answer; whoever doesn't have it can't answer.
    token: str
    #: Counts from 1; a later attempt has a larger number, so it serves as a fencing token.
    attempt: int
    #: The task's UUID, the same for all its attempts: an idempotency key for the task's side effects.
    task_id: str
    name: str
    order_no: int
    run_id: str
    run_number: int
    pipeline_name: str
    project: str
    context: dict[str, Any]
    data: Value
    published_at: datetime
    #: Seconds after which the worker ends the task; None lets it run for as long as it takes.
    run_timeout_s: float | None = None
    #: On how many first rows the whole run is only tried out; None for a run on all of them.
    sample_rows: int | None = None
    #: Of a table in `data`, only so many first rows are the task's input; None for all.
    data_rows: int | None = None

    def to_bytes(self) -> bytes:
        run = {
            "id": self.run_id,
            "number": self.run_number,
            "pipeline_name": self.pipeline_name,
            "project": self.project,
            **({} if self.sample_rows is None else {"sample_rows": self.sample_rows}),
        }
        task = {"id": self.task_id, "name": self.name, "order_no": self.order_no}
        return encode(
            "task",
            token=self.token,
            attempt=self.attempt,
            run=run,
            task=task,
            context=self.context,
            data=self.data.to_wire(),
            published_at=format_time(self.published_at),
            **({} if self.run_timeout_s is None else {"run_timeout_s": self.run_timeout_s}),
            **({} if self.data_rows is None else {"data_rows": self.data_rows}),
        )

    @classmethod
    def parse(cls, body: bytes) -> "TaskEnvelope":
        """Return the envelope that a delivery from a task's queue holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(typed(body, "task"))
        run, task = fields.inner("run"), fields.inner("task")
        return cls(
            token=fields.id("token"),
            attempt=fields.count("attempt"),
            task_id=task.text("id"),
            name=task.task_name("name"),
            order_no=task.integer("order_no"),
            run_id=run.text("id"),
            run_number=run.integer("number"),
            pipeline_name=run.text("pipeline_name"),
            project=run.text("project"),
            context=fields.object("context"),
            data=parse_value(fields.raw("data"), path="data"),
            published_at=fields.time("published_at"),
            run_timeout_s=None if fields.raw("run_timeout_s") is None else fields.number("run_timeout_s"),
            sample_rows=None if run.raw("sample_rows") is None else run.count("sample_rows"),
            data_rows=None if fields.raw("data_rows") is None else fields.count("data_rows"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task failed."""

    #: Stable and for programs, as in `unknown_column`.
    code: str
    message: str
    traceback: str = ""
    #: True when the same attempt may work later (a store or a network was down).
    is_retryable: bool = False

    def to_wire(self) -> dict[str, Any]:
        retryable = {"retryable": True} if self.is_retryable else {}
        # A file name that isn't UTF-8 stands in messages as half surrogate pairs; the reply must arrive all the same.
        texts = {"message": readable(self.message), "traceback": readable(self.traceback)}
        return {"code": self.code, **texts, **retryable}

    @classmethod
    def parse(cls, fields: Fields) -> "TaskError":
        return cls(
            code=fields.text("code"),
            message=fields.words("message"),
            traceback=fields.words("traceback", ""),
            is_retryable=fields.flag("retryable", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A task has run for a second; shorter ones don't say so."""

    token: str
    worker: str
    #: By the worker's clock.
    at: datetime

    def to_bytes(self) -> bytes:
        return encode("started", token=self.token, worker=self.worker, at=format_time(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A worker takes an attempt over from the broker, and acks it next: from now on beats renew its lease."""

    token: str
    worker: str
    #: By the worker's clock.
    at: datetime

    def to_bytes(self) -> bytes:
        return encode("claimed", token=self.token, worker=self.worker, at=format_time(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """An attempt that was withdrawn came to a worker, which didn't begin it or has ended it."""

    token: str
    worker: str
    #: By the worker's clock.
    at: datetime

    def to_bytes(self) -> bytes:
        return encode("withdrawn", token=self.token, worker=self.worker, at=format_time(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How an attempt ended: with a result, with an error, or given up by a worker that has to end."""

    token: str
    worker: str
    #: By the worker's clock.
    at: datetime
    #: How long the task's code ran, in seconds.
    elapsed_s: float
    #: What the task returned; None when it failed.
    result: Value | None = None
    #: Why it failed, or was given up; None when it succeeded.
    error: TaskError | None = None
    #: True when the worker gives it up: it neither succeeded nor failed, and is lost as if the worker had died.
    is_lost: bool = False
    #: How many log lines it wrote, so that a missing one is noticed.
    log_lines: int = 0
    #: What the result is, for people; None where nothing is said of it.
    card: dict[str, Any] | None = None

    def to_bytes(self) -> bytes:
        if self.error is not None:
            outcome: dict[str, Any] = {
                "status": "lost" if self.is_lost else "failed",
                "error": self.error.to_wire(),
            }
        else:
            assert self.result is not None
            card = {} if self.card is None else {"card": self.card}
            outcome = {"status": "succeeded", "result": self.result.to_wire(), **card}
        return encode(
            "finished",
            token=self.token,
            worker=self.worker,
            at=format_time(self.at),
            elapsed_s=round(self.elapsed_s, 6),
            **outcome,
            log_lines=self.log_lines,
        )


Reply = Started | Claimed | Finished | Withdrawn

#: The replies that only name an attempt, by their type.
_SHORT: Final[dict[str, Callable[..., Started | Claimed | Withdrawn]]] = {
    "started": Started,
    "claimed": Claimed,
    "withdrawn": Withdrawn,
}


def parse_reply(body: bytes) -> Reply:
    """Return the reply that a delivery from `shepherd.replies` holds.

    Raises:
        ProtocolError: It holds none; the text names the field.
    """
    document = parse_document(body)
    fields = Fields(document)
    kind = fields.text("type")
    if (short := _SHORT.get(kind)) is not None:
        return short(token=fields.id("token"), worker=fields.id("worker"), at=fields.time("at"))
    if kind == "finished":
        return _parse_finished(fields)
    raise ProtocolError(f"type: {kind!r} is no reply")


def _parse_finished(fields: Fields) -> Finished:
    status = fields.text("status")
    if status not in {"succeeded", "failed", "lost"}:
        raise ProtocolError(f"status: {status!r} is neither 'succeeded' nor 'failed' nor 'lost'")
    has_failed = status != "succeeded"
    return Finished(
        token=fields.id("token"),
        worker=fields.id("worker"),
        at=fields.time("at"),
        elapsed_s=fields.number("elapsed_s"),
        result=None if has_failed else parse_value(fields.raw("result"), path="result"),
        error=TaskError.parse(fields.inner("error")) if has_failed else None,
        log_lines=fields.count("log_lines", 0),
        is_lost=status == "lost",
        card=None if has_failed else parse_card(fields.raw("card")),
    )
