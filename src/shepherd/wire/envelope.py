"""The messages of the protocol, one type each. `docs/protocol.md` is their description for other languages."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shepherd.errors import ProtocolError
from shepherd.wire import strict_json
from shepherd.wire.fields import VERSION, Fields, format_time, parse_document, readable
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

    def to_bytes(self) -> bytes:
        run = {
            "id": self.run_id,
            "number": self.run_number,
            "pipeline_name": self.pipeline_name,
            "project": self.project,
        }
        task = {"id": self.task_id, "name": self.name, "order_no": self.order_no}
        return _encode(
            "task",
            token=self.token,
            attempt=self.attempt,
            run=run,
            task=task,
            context=self.context,
            data=self.data.to_wire(),
            published_at=format_time(self.published_at),
        )

    @classmethod
    def parse(cls, body: bytes) -> "TaskEnvelope":
        """Return the envelope that a delivery from a task's queue holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(_typed(body, "task"))
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
        return _encode("started", token=self.token, worker=self.worker, at=format_time(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How an attempt ended: with a result, or with an error."""

    token: str
    worker: str
    #: By the worker's clock.
    at: datetime
    #: How long the task's code ran, in seconds.
    elapsed_s: float
    #: What the task returned; None when it failed.
    result: Value | None = None
    #: Why it failed; None when it succeeded.
    error: TaskError | None = None
    #: How many log lines it wrote, so that a missing one is noticed.
    log_lines: int = 0

    def to_bytes(self) -> bytes:
        if self.error is not None:
            outcome: dict[str, Any] = {"status": "failed", "error": self.error.to_wire()}
        else:
            assert self.result is not None
            outcome = {"status": "succeeded", "result": self.result.to_wire()}
        return _encode(
            "finished",
            token=self.token,
            worker=self.worker,
            at=format_time(self.at),
            elapsed_s=round(self.elapsed_s, 6),
            **outcome,
            log_lines=self.log_lines,
        )


Reply = Started | Finished


def parse_reply(body: bytes) -> Reply:
    """Return the reply that a delivery from `shepherd.replies` holds.

    Raises:
        ProtocolError: It holds none; the text names the field.
    """
    document = parse_document(body)
    fields = Fields(document)
    kind = fields.text("type")
    if kind == "started":
        return Started(token=fields.id("token"), worker=fields.id("worker"), at=fields.time("at"))
    if kind == "finished":
        return _parse_finished(fields)
    raise ProtocolError(f"type: {kind!r} is no reply")


def _parse_finished(fields: Fields) -> Finished:
    status = fields.text("status")
    if status not in {"succeeded", "failed"}:
        raise ProtocolError(f"status: {status!r} is neither 'succeeded' nor 'failed'")
    has_failed = status == "failed"
    return Finished(
        token=fields.id("token"),
        worker=fields.id("worker"),
        at=fields.time("at"),
        elapsed_s=fields.number("elapsed_s"),
        result=None if has_failed else parse_value(fields.raw("result"), path="result"),
        error=TaskError.parse(fields.inner("error")) if has_failed else None,
        log_lines=fields.count("log_lines", 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A worker lives, and these attempts are in its hands."""

    worker: str
    at: datetime
    free_slots: int
    #: Tokens of every attempt that it holds.
    holds: tuple[str, ...]

    def to_bytes(self) -> bytes:
        return _encode(
            "beat", worker=self.worker, at=format_time(self.at), free_slots=self.free_slots, holds=list(self.holds)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a task's code logged or printed."""

    #: Counts from 1 within an attempt, so that a gap is seen.
    n: int
    at: datetime
    #: A level of Python's `logging`, DEBUG to CRITICAL; a printed line is INFO, one on standard error WARNING.
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLines:
    """Some lines of one attempt, in their order."""

    token: str
    worker: str
    lines: tuple[LogLine, ...]

    def to_bytes(self) -> bytes:
        lines = [
            {"n": line.n, "at": format_time(line.at), "level": line.level, "text": readable(line.text)}
            for line in self.lines
        ]
        return _encode("log", token=self.token, worker=self.worker, lines=lines)

    @classmethod
    def parse(cls, body: bytes) -> "LogLines":
        """Return the lines that a delivery from `shepherd.logs` holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(_typed(body, "log"))
        inner = (Fields(line, path=f"lines[{index}]") for index, line in enumerate(fields.items("lines")))
        lines = tuple(
            LogLine(
                n=line.count("n"), at=line.time("at"), level=line.words("level", longest=10), text=line.words("text")
            )
            for line in inner
        )
        return cls(token=fields.id("token"), worker=fields.id("worker"), lines=lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The Task Publisher asks every worker to announce itself now."""

    def to_bytes(self) -> bytes:
        return _encode("hello")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Something was accepted: the Task Publisher should look at once, not at its next sweep."""

    def to_bytes(self) -> bytes:
        return _encode("wake")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that nobody can use, kept with the reason for people to look at."""

    reason: str
    #: The queue that it came from.
    source: str
    body: bytes

    def to_bytes(self) -> bytes:
        return _encode("dead", reason=self.reason, source=self.source, body=self.body.decode("utf-8", "replace"))


def parse_kind(body: bytes) -> str:
    """Return the `type` of a message, whatever else is in it.

    Raises:
        ProtocolError: It isn't a message.
    """
    return Fields(parse_document(body)).text("type")


def parse_beat(body: bytes) -> Beat:
    """Return the heartbeat that a delivery from `shepherd.beats` holds.

    Raises:
        ProtocolError: It holds none; the text names the field.
    """
    fields = Fields(_typed(body, "beat"))
    holds = fields.items("holds")
    if not all(isinstance(token, str) for token in holds):
        raise ProtocolError("holds: must be a list of strings")
    return Beat(
        worker=fields.id("worker"), at=fields.time("at"), free_slots=fields.count("free_slots"), holds=tuple(holds)
    )


def _typed(body: bytes, kind: str) -> dict[str, Any]:
    document = parse_document(body)
    if document.get("type") != kind:
        raise ProtocolError(f"type: is {document.get('type')!r}, wanted {kind!r}")
    return document


def _encode(kind: str, **fields: Any) -> bytes:
    return strict_json.dumps({"v": VERSION, "type": kind, **fields}).encode()
