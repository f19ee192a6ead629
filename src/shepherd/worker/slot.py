"""One slot: takes a delivery, has it executed by its child, replies, and only then takes the next one."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shepherd.broker.port import Broker, Delivery, Intake, Message
from shepherd.broker.topology import DEAD_EXCHANGE, REPLIES, task_queue
from shepherd.wire.envelope import Finished, Started, TaskError
from shepherd.wire.manifest import TaskOffer
from shepherd.worker.logbook import FLUSH_S, Logbook
from shepherd.worker.outbox import Outbox
from shepherd.worker.pipe import Frame, FrameKind, parse_line
from shepherd.worker.process import ChildProcess, Event, Exited, OutputLine, wait_until

logger = logging.getLogger(__name__)

#: A task that runs longer says `started`.
STARTED_AFTER_S: Final = 1.0
#: How long an idle slot waits for a delivery before it looks whether it should stop.
_TAKE_S: Final = 0.5
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_NO_LINES: Final = b'"log_lines":0}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all slots of a worker share."""

    worker: str
    broker: Broker
    outbox: Outbox
    stopping: threading.Event
    start_child: Callable[[], ChildProcess]
    #: Parses a hello's payload, keeps it as the worker's offer, and returns it.
    welcome: Callable[[bytes], tuple[TaskOffer, ...]]


class Slot:
    """One thread and one child process."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self._number = number
        self._around = around
        self._child: ChildProcess | None = None
        self._intake: Intake | None = None
        self._queues: tuple[str, ...] = ()
        self._pause_s = 0.0
        self._is_killed = False
        #: Token of the attempt in hand, empty when the slot is free.
        self.holding = ""
        self.thread = threading.Thread(target=self._run, name=f"shepherd-slot-{number}", daemon=True)

    @property
    def is_free(self) -> bool:
        return self._intake is not None and not self.holding

    def kill(self) -> None:
        """End the child at once; what it executes goes back to its queue when the broker is closed."""
        self._is_killed = True
        if self._child is not None:
            self._child.kill()

    def _run(self) -> None:
        while not self._around.stopping.is_set():
            try:
                self._step()
            except Exception:  # a daemon's loop: logs, backs off, goes on
                logger.exception("slot.failed", extra={"slot": self._number})
                self._around.stopping.wait(_FIRST_PAUSE_S)
        self._close()

    def _step(self) -> None:
        child = self._ready_child()
        if child is None or self._intake is None:
            return
        delivery = self._intake.take(wait_s=_TAKE_S)
        if delivery is None:
            self._overhear(child)
        elif self._around.stopping.is_set():
            self._intake.release(delivery)
        else:
            self._handle(delivery, self._intake)

    def _handle(self, delivery: Delivery, intake: Intake) -> None:
        self.holding = delivery.message_id or "?"
        try:
            child = self._child_with(delivery)
            if child is None:
                intake.release(delivery)
                return
            messages = self._messages_for(delivery, child)
            # No answer to what was killed with the worker: unacked it goes to another one.
            # Deliver first, ack then: a crash between the two repeats an attempt, the other order could lose a reply.
            # A claim at the hold time and the ack it allows will go between taking and delivering.
            if not self._is_killed and self._around.outbox.deliver(messages):
                intake.ack(delivery)
        finally:
            self.holding = ""

    def _messages_for(self, delivery: Delivery, child: ChildProcess) -> list[Message]:
        logbook = Logbook(token=delivery.message_id, worker=self._around.worker)
        began = time.monotonic()
        final = self._executed(delivery, child, logbook)
        if isinstance(final, Frame) and final.kind is FrameKind.RESULT:
            body = _with_log_lines(final.payload, logbook.count)
            return [*logbook.rest(), Message(routing_key=REPLIES, body=body, type="finished")]
        if isinstance(final, Exited):
            error = TaskError(code="worker_crashed", message=f"the process that executed the task {final.how}")
        else:
            error = TaskError(code="protocol_error", message=final.payload.decode())
        logger.warning("task.broken", extra={"token": delivery.message_id, "code": error.code, "why": error.message})
        return [*logbook.rest(), self._refusal(delivery, error, logbook, elapsed_s=time.monotonic() - began)]

    def _executed(self, delivery: Delivery, child: ChildProcess, logbook: Logbook) -> Frame | Exited:
        """Return the child's last word on a delivery; its lines go into the logbook on the way."""
        started_at = time.monotonic() + STARTED_AFTER_S
        has_told = False
        while True:
            wait_s = FLUSH_S if logbook.is_waiting else None if has_told else wait_until(started_at)
            events = child.receive(wait_s=3600.0 if wait_s is None else wait_s)
            final = _noted(events, logbook)
            if final is not None:
                _noted(child.drained() if isinstance(final, Frame) else [], logbook)
                return final
            if not has_told and time.monotonic() >= started_at:
                has_told = True
                self._tell_started(delivery)
            self._around.outbox.post(logbook.due())

    def _child_with(self, delivery: Delivery) -> ChildProcess | None:
        """Return the child that has the delivery, or None when none could be started."""
        while (child := self._ready_child()) is not None:
            if child.send(FrameKind.TASK, delivery.body):
                return child
        return None

    def _tell_started(self, delivery: Delivery) -> None:
        if delivery.message_id:
            started = Started(token=delivery.message_id, worker=self._around.worker, at=datetime.now(UTC))
            self._around.outbox.post([Message(routing_key=REPLIES, body=started.to_bytes(), type="started")])

    def _refusal(self, delivery: Delivery, error: TaskError, logbook: Logbook, *, elapsed_s: float) -> Message:
        if not delivery.message_id:
            # Nobody can be answered: where operators look, with what it was.
            return Message(exchange=DEAD_EXCHANGE, routing_key="", body=delivery.body, type="malformed")
        reply = Finished(
            token=delivery.message_id,
            worker=self._around.worker,
            at=datetime.now(UTC),
            elapsed_s=elapsed_s,
            error=error,
            log_lines=logbook.count,
        )
        return Message(routing_key=REPLIES, body=reply.to_bytes(), type="finished")

    def _ready_child(self) -> ChildProcess | None:
        """Return a child that waits for a task; None when there is none and a pause was made."""
        if self._child is not None and self._child.is_alive:
            return self._child
        self._drop_child()
        self._child = self._around.start_child()
        ended = self._until_hello(self._child)
        if ended is None:
            self._pause_s = 0.0
            return self._child
        self._drop_child()
        if self._around.stopping.is_set():
            return None
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self._pause_s * 2))
        logger.error("child.not_started", extra={"slot": self._number, "why": ended, "again_in_s": self._pause_s})
        self._around.stopping.wait(self._pause_s)
        return None

    def _until_hello(self, child: ChildProcess) -> str | None:
        """Return None when the child is ready, otherwise why it never will be."""
        while not self._around.stopping.is_set():
            for event in child.receive(wait_s=_TAKE_S):
                if isinstance(event, Frame) and event.kind is FrameKind.HELLO:
                    self._listen_to(self._around.welcome(event.payload))
                    return None
                if isinstance(event, Exited):
                    return f"the file {event.how} before worker.run() was reached"
                _say(event)
        return "the worker ends"

    def _listen_to(self, offers: tuple[TaskOffer, ...]) -> None:
        queues = tuple(task_queue(offer.name) for offer in offers)
        # Not while a delivery of the old intake is in hand: it must be acked there.
        if queues == self._queues or self.holding:
            return
        if self._intake is not None:
            self._intake.close()
        self._intake, self._queues = self._around.broker.intake(queues), queues

    def _overhear(self, child: ChildProcess) -> None:
        """Pass on what is said between two tasks, so that no pipe fills up; it belongs to no attempt."""
        for event in child.receive(wait_s=0):
            _say(event)

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _close(self) -> None:
        if self._intake is not None:
            self._intake.close()
        self._drop_child()


def _noted(events: list[Event], logbook: Logbook) -> Frame | Exited | None:
    for event in events:
        if isinstance(event, OutputLine):
            logbook.add(level=event.level, text=event.text)
        elif isinstance(event, Frame) and event.kind is FrameKind.LINE:
            line = parse_line(event.payload)
            logbook.add(level=line.level, text=line.text, at=line.at)
        else:
            return event
    return None


def _say(event: Event) -> None:
    if isinstance(event, OutputLine):
        logger.info("child.says", extra={"text": event.text})
    elif isinstance(event, Frame) and event.kind is FrameKind.LINE:
        logger.info("child.says", extra={"text": parse_line(event.payload).text})


def _with_log_lines(reply: bytes, count: int) -> bytes:
    """Return the reply with its last field filled in; only the supervisor counts the lines."""
    assert reply.endswith(_NO_LINES)
    return reply if count == 0 else b'%b"log_lines":%d}' % (reply[: -len(_NO_LINES)], count)
