"""One attempt in the hands of a slot's child: told that it has started, claimed, limited, ended, answered."""

import json
import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shepherd.broker.port import LARGEST_MESSAGE, Intake, Message
from shepherd.broker.topology import DEAD_EXCHANGE, REPLIES
from shepherd.errors import BrokerUnavailableError, StoreUnavailableError
from shepherd.wire.envelope import Claimed, Finished, Started, TaskError, Withdrawn
from shepherd.worker.attempt import Attempt, Cause
from shepherd.worker.logbook import FLUSH_S, Logbook
from shepherd.worker.pipe import Frame, FrameKind, parse_line
from shepherd.worker.process import ChildProcess, Event, Exited, OutputLine
from shepherd.worker.surroundings import Surroundings

logger = logging.getLogger(__name__)

#: A task that runs longer says `started`.
STARTED_AFTER_S: Final = 1.0
#: How long a claim's confirm is waited for at once: until the ack the attempt is the broker's as well.
_CONFIRM_S: Final = 0.2
#: Between two looks whether a claim is confirmed, and between two tries where one can't be made.
_CLAIM_LOOK_S: Final = 0.05
_CLAIM_AGAIN_S: Final = 2.0
_NO_LINES: Final = b'"log_lines":0}'
_LIMIT_FIELD: Final = b'"run_timeout_s"'


@dataclass(slots=True)
class Begun:
    """An attempt that a child has."""

    attempt: Attempt
    #: When it was given to the child, by the monotonic clock.
    at: float
    #: What the child has said of it.
    heard: list[Event] = field(default_factory=list)
    #: Why not all of that is known.
    failure: Exception | None = None


class Execution:
    """For the slot's thread only."""

    def __init__(self, around: Surroundings, begun: Begun, child: ChildProcess, intake: Intake) -> None:
        attempt = begun.attempt
        self._around = around
        self._attempt = attempt
        self._child = child
        self._intake = intake
        self._logbook = Logbook(token=attempt.token, worker=around.worker)
        self._began = begun.at
        #: What was heard of it by others.
        self._heard = begun.heard
        self._started_at = self._began + STARTED_AFTER_S
        self._claim_at = self._began + around.hold_s if attempt.token else math.inf
        self._limit_s = _limit_s(attempt.delivery.body)
        self._limit_at = self._began + self._limit_s
        self._is_claim_sent = False
        self._claim_confirmed = threading.Event()

    def run(self) -> list[Message]:
        """Execute, and return what there is to say, the reply last; nothing for what is left to the broker."""
        final = self._last_word()
        self._child.is_muted = False
        cause = self._attempt.over()
        if isinstance(final, Frame) and final.kind is FrameKind.RESULT:
            if self._around.sight.trouble and self._around.sight.is_needed_by(final.payload, "result"):
                return self._said(self._refusal(_unseen(self._around.sight.trouble)))
            return self._said(finished(final.payload, log_lines=self._logbook.count))
        match cause:
            case Cause.WITHDRAWN:
                return self._said(withdrawn(self._attempt, worker=self._around.worker))
            case Cause.GIVEN_UP:
                return self._said(self._given_up()) if self._attempt.is_claimed else []
            case Cause.RUN_TIMEOUT:
                message = (
                    f"the attempt ran longer than its run_timeout of {self._limit_s:g} s, "
                    "and was ended with everything that it started"
                )
                return self._said(self._refusal(TaskError(code="run_timeout", message=message)))
        if isinstance(final, Exited):
            error = TaskError(code="worker_crashed", message=f"the process that executed the task {final.how}")
        else:
            error = TaskError(code="protocol_error", message=final.payload.decode())
        return self._said(self._refusal(error))

    def _said(self, reply: Message) -> list[Message]:
        return [*self._logbook.rest(), reply]

    def _last_word(self) -> Frame | Exited:
        """Return the child's last word; its lines go into the logbook on the way."""
        while True:
            events, self._heard = self._heard or self._child.receive(wait_s=self._wait_s()), []
            final = _noted(events, self._logbook)
            if final is not None:
                _noted(self._child.drained() if isinstance(final, Frame) else [], self._logbook)
                return final
            self._child.is_muted = self._logbook.is_full
            self._keep_time(time.monotonic())
            self._around.outbox.post(self._logbook.due())

    def _wait_s(self) -> float:
        moment = min(self._started_at, self._claim_at, self._limit_at)
        wait_s = min(3600.0, max(0.0, moment - time.monotonic()))
        return min(wait_s, FLUSH_S) if self._logbook.is_waiting else wait_s

    def _keep_time(self, now: float) -> None:
        if now >= self._limit_at:
            self._limit_at = math.inf
            self._attempt.end(Cause.RUN_TIMEOUT)
        if now >= self._started_at:
            self._started_at = math.inf
            self._tell_started()
        if now >= self._claim_at:
            self._claim_at = now + self._claim()

    def _tell_started(self) -> None:
        if self._attempt.token:
            started = Started(token=self._attempt.token, worker=self._around.worker, at=datetime.now(UTC))
            self._around.outbox.post([Message(routing_key=REPLIES, body=started.to_bytes(), type="started")])

    def _claim(self) -> float:
        """Do the next step of the claim, and return after how many seconds to go on with it.

        In this order: take nothing more, since the ack would bring the next delivery to a slot that is busy for hours;
        say it; have it confirmed; ack. A worker that dies before the ack leaves the attempt to the broker as well.
        """
        # One that was claimed with another delivery of it is claimed once more: this delivery has to be acked, too.
        if not self._is_claim_sent and not self._send_claim():
            return _CLAIM_AGAIN_S
        if not self._claim_confirmed.is_set():
            return _CLAIM_LOOK_S
        self._attempt.is_claimed = self._attempt.is_acked = True
        self._intake.ack(self._attempt.delivery)
        logger.info("task.claimed", extra={"token": self._attempt.token})
        return math.inf

    def _send_claim(self) -> bool:
        self._around.replies.look_after()
        if self._around.replies.trouble:
            # The broker stays responsible: a reply that can't be kept mustn't be promised.
            return False
        try:
            self._intake.pause()
        except BrokerUnavailableError:
            return False
        self._is_claim_sent = True
        message = claimed(self._attempt, worker=self._around.worker)
        self._around.outbox.post([message], on_confirmed=self._claim_confirmed.set)
        self._claim_confirmed.wait(_CONFIRM_S)
        return True

    def _given_up(self) -> Message:
        error = TaskError(code="worker_stopped", message="the worker was told twice to end")
        return self._refusal(error, is_lost=True)

    def _refusal(self, error: TaskError, *, is_lost: bool = False) -> Message:
        token = self._attempt.token
        logger.warning("task.broken", extra={"token": token, "code": error.code, "why": error.message})
        if not token:
            # Nobody can be answered: where operators look, with what it was, or as much of it as can be sent.
            return Message(
                exchange=DEAD_EXCHANGE,
                routing_key="",
                body=self._attempt.delivery.body[:LARGEST_MESSAGE],
                type="malformed",
            )
        reply = Finished(
            token=token,
            worker=self._around.worker,
            at=datetime.now(UTC),
            elapsed_s=time.monotonic() - self._began,
            error=error,
            is_lost=is_lost,
            log_lines=self._logbook.count,
        )
        return _finished(reply.to_bytes())


def finished(child_says: bytes, *, log_lines: int) -> Message:
    """Return the reply that a child made, with its last field filled in; only the supervisor counts the lines."""
    assert child_says.endswith(_NO_LINES)
    if log_lines:
        return _finished(b'%b"log_lines":%d}' % (child_says[: -len(_NO_LINES)], log_lines))
    return _finished(child_says)


def _finished(reply: bytes) -> Message:
    return Message(routing_key=REPLIES, body=reply, type="finished")


def claimed(attempt: Attempt, *, worker: str) -> Message:
    claim = Claimed(token=attempt.token, worker=worker, at=datetime.now(UTC))
    return Message(routing_key=REPLIES, body=claim.to_bytes(), type="claimed")


def withdrawn(attempt: Attempt, *, worker: str) -> Message:
    reply = Withdrawn(token=attempt.token, worker=worker, at=datetime.now(UTC))
    return Message(routing_key=REPLIES, body=reply.to_bytes(), type="withdrawn")


def unseen(attempt: Attempt, *, worker: str, why: str) -> Message:
    """Return the answer to an attempt that nobody could begin here."""
    now = datetime.now(UTC)
    reply = Finished(token=attempt.token, worker=worker, at=now, elapsed_s=0.0, error=_unseen(why))
    return _finished(reply.to_bytes())


def _unseen(why: str) -> TaskError:
    # Retryable: another worker may see the store, or this one once it is mended.
    return TaskError(code=StoreUnavailableError.code, message=why, is_retryable=True)


def say(event: Event) -> None:
    """Pass on what was said between two tasks; it belongs to no attempt."""
    if isinstance(event, OutputLine):
        logger.info("child.says", extra={"text": event.text})
    elif isinstance(event, Frame) and event.kind is FrameKind.LINE:
        logger.info("child.says", extra={"text": parse_line(event.payload).text})


def may_have_limit(body: bytes) -> bool:
    # Most have none, and a supervisor reads no bodies.
    return _LIMIT_FIELD in body


def _limit_s(body: bytes) -> float:
    """Return after how many seconds the attempt is to be ended."""
    # What can't be read is the child's to say.
    if may_have_limit(body):
        with suppress(ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            limit = json.loads(body).get("run_timeout_s")
            return math.inf if limit is None else float(limit)
    return math.inf


def _noted(events: list[Event], logbook: Logbook) -> Frame | Exited | None:
    for event in events:
        if isinstance(event, OutputLine):
            logbook.add(level=event.level, text=event.text)
        elif isinstance(event, Frame) and event.kind is FrameKind.LINE:
            if logbook.is_full:
                continue
            line = parse_line(event.payload)
            logbook.add(level=line.level, text=line.text, at=line.at)
        else:
            return event
    return None
