"""A slot's short tasks, on the thread where their deliveries arrive: waking another costs more than such a task."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from shepherd.broker.port import LARGEST_MESSAGE, Delivery, Intake, Message, Reactor
from shepherd.errors import TransientError
from shepherd.worker.attempt import Attempt
from shepherd.worker.execution import Begun, finished, may_have_limit, say
from shepherd.worker.pipe import Frame, FrameKind
from shepherd.worker.process import ChildProcess
from shepherd.worker.surroundings import Surroundings

logger = logging.getLogger(__name__)

#: What isn't over by then is no short task: the slot's thread goes on with it. Below what `started` waits for.
_SHORT_S: Final = 0.4
#: What a child's socket takes at once while nothing else is in it.
_LARGEST_BODY: Final = 64 * 1024
#: After this long without a confirm, a reply is sent anew; sooner where the slot's thread is about to be busy.
_CONFIRM_S: Final = 10.0
_MOMENT_S: Final = 0.2


@dataclass(slots=True, eq=False)
class Unsaid:
    """A reply that was sent and isn't confirmed."""

    attempt: Attempt
    reply: Message
    #: By the monotonic clock.
    sent_at: float
    is_refused: bool = False
    #: Set, where somebody waits for it, once it is confirmed or refused.
    told: threading.Event | None = None

    def is_older_than(self, seconds: float) -> bool:
        """Tell whether its confirm has been waited for so long, or won't come."""
        return self.is_refused or time.monotonic() - self.sent_at > seconds


class Sprint:
    """Takes what arrives while nothing is special about it, and answers it. What turns out to be, it leaves as it is.

    `takes` and what the reactor calls don't wait. The slot's thread calls all else, each time it looks: it goes on with
    what was left, and with what takes long. Only one of the two uses the child at a time: it is `armed` for this one.
    """

    def __init__(
        self, around: Surroundings, reactor: Reactor, intake: Intake, *, must_rest: Callable[[], bool]
    ) -> None:
        """Take what `intake` has as long as the slot doesn't `must_rest`."""
        self._around = around
        self._reactor = reactor
        self._intake = intake
        self._must_rest = must_rest
        #: Reentrant: what is sent may be refused at once.
        self._lock = threading.RLock()
        self._child: ChildProcess | None = None
        #: What a child has; left to the slot's thread where there is no child.
        self._begun: Begun | None = None
        self._unsaid: Unsaid | None = None
        intake.offer_to(self.takes)

    @property
    def is_busy(self) -> bool:
        return self._begun is not None or self._unsaid is not None

    def arm(self, child: ChildProcess) -> None:
        """Use this child, which waits for a task, until disarmed."""
        with self._lock:
            # What was left meanwhile is gone on with first.
            if self._child is child or self._begun is not None or child.has_ended:
                return
            self._child = child
        self._reactor.watch(child.descriptor, self._on_ready)

    def disarm(self) -> Begun | None:
        """Use no child any more; return what it has, to be gone on with."""
        with self._lock:
            child, self._child = self._child, None
            begun, self._begun = self._begun, None
        if child is not None:
            # Not with the lock: it waits for the reactor's thread, which may want it.
            self._reactor.unwatch(child.descriptor)
        return begun

    def left(self) -> Begun | None:
        """Return what the slot's thread has to go on with, as `disarm` does, if there is such a thing."""
        with self._lock:
            begun = self._begun
            if begun is None or (self._child is not None and time.monotonic() - begun.at <= _SHORT_S):
                return None
        return self.disarm()

    @property
    def is_late(self) -> bool:
        """Whether a reply was refused, or waits for its confirm for longer than confirms take."""
        unsaid = self._unsaid
        return unsaid is not None and unsaid.is_older_than(_CONFIRM_S)

    def unsaid(self) -> Unsaid | None:
        """Return the last reply, to be sent anew, if it isn't confirmed within a moment."""
        with self._lock:
            unsaid = self._unsaid
            if unsaid is None:
                return None
            told = unsaid.told = threading.Event()
            is_refused = unsaid.is_refused
        if not is_refused:
            told.wait(_MOMENT_S)
        with self._lock:
            if self._unsaid is not unsaid:
                return None
            self._unsaid = None
            return unsaid

    def takes(self, delivery: Delivery) -> bool:
        """Begin with a delivery, unless it is the slot's thread that must; never raises."""
        with self._lock:
            if self._child is None or self._begun is not None or not self._is_plain(delivery):
                return False
            if self._unsaid is not None and self._unsaid.is_older_than(_SHORT_S):
                # The slot's thread, which gets this one, looks after that one first.
                return False
            attempt = Attempt(delivery)
            if not self._around.hands.take(attempt):
                return False
            # In this order: what is withdrawn from now on is ended, as it is in hand.
            if attempt.token not in self._around.withdrawn and attempt.begin(self._child.kill):
                begun = Begun(attempt, time.monotonic())
                if self._child.send(FrameKind.TASK, delivery.body):
                    self._begun = begun
                    return True
            self._around.hands.let_go(attempt)
            return False

    def _is_plain(self, delivery: Delivery) -> bool:
        body = delivery.body
        is_ordinary = delivery.message_id and len(body) <= _LARGEST_BODY and not may_have_limit(body)
        return bool(is_ordinary) and self._may_go_on() and not self._around.sight.is_looking

    def _may_go_on(self) -> bool:
        return not (self._around.stopping.is_set() or self._around.sight.trouble or self._must_rest())

    def _on_ready(self) -> None:
        with self._lock:
            child = self._child
            if child is None:
                # The slot's thread has it.
                return
            try:
                self._hear(child, self._begun)
            except Exception as error:  # whoever goes on with it deals with it
                logger.exception("sprint.failed")
                if self._begun is not None:
                    self._begun.failure = error
                self._leave(child)

    def _hear(self, child: ChildProcess, begun: Begun | None) -> None:
        said = child.heard()
        if begun is None:
            for event in said:
                say(event)
        else:
            begun.heard += said
            if begun.heard and not child.has_ended and (reply := self._plain_reply(child, begun)) is not None:
                self._answer(begun.attempt, reply)
                return
        if child.has_ended or (begun is not None and begun.heard):
            self._leave(child)

    def _leave(self, child: ChildProcess) -> None:
        """Leave the child to the slot's thread, with what it has begun."""
        self._child = None
        self._reactor.unwatch(child.descriptor)
        self._intake.rouse()

    def _plain_reply(self, child: ChildProcess, begun: Begun) -> Message | None:
        """Return the reply, if that is all there is, and nothing is against sending it from here."""
        event = begun.heard[0]
        if len(begun.heard) > 1 or not isinstance(event, Frame) or event.kind is not FrameKind.RESULT:
            return None
        if written := child.drained():
            begun.heard = [*written, event]
            return None
        # What waits in the outbox came first; what is claimed goes to the disk first.
        is_next = self._unsaid is None and self._around.outbox.is_empty and not begun.attempt.is_claimed
        if not is_next or not self._may_go_on() or len(event.payload) > LARGEST_MESSAGE:
            return None
        return finished(event.payload, log_lines=0) if begun.attempt.is_over_at_once() else None

    def _answer(self, attempt: Attempt, reply: Message) -> None:
        unsaid = self._unsaid = Unsaid(attempt, reply, time.monotonic())
        self._begun = None
        self._reactor.send(reply, on_sent=partial(attempt.ack, self._intake), on_settled=partial(self._settled, unsaid))

    def _settled(self, unsaid: Unsaid, failure: TransientError | None) -> None:
        with self._lock:
            if self._unsaid is not unsaid:
                # The slot's thread sends it.
                return
            if failure is None:
                self._unsaid = None
                self._around.hands.let_go(unsaid.attempt)
            else:
                unsaid.is_refused = True
                self._intake.rouse()
            if unsaid.told is not None:
                unsaid.told.set()
