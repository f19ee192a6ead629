"""One slot: takes a delivery, has it executed by its child, replies, and only then takes the next one."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from shepherd.broker.port import Delivery, Intake, Message
from shepherd.broker.topology import task_queue
from shepherd.errors import BrokerUnavailableError
from shepherd.wire.manifest import TaskOffer
from shepherd.worker.attempt import Attempt
from shepherd.worker.execution import Begun, Execution, claimed, say, unseen, withdrawn
from shepherd.worker.pipe import Frame, FrameKind
from shepherd.worker.process import ChildProcess, Exited
from shepherd.worker.sprint import Sprint
from shepherd.worker.surroundings import Surroundings

logger = logging.getLogger(__name__)

#: How long an idle slot waits for a delivery before it looks whether it should stop.
_TAKE_S: Final = 0.5
#: After this long no slot takes anything any more, once all are to pause.
_PAUSED_S: Final = 2 * _TAKE_S
#: How long a delivery waits for the list of withdrawn attempts before it is given back.
_LIST_S: Final = 5.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class Slot:
    """One thread and one child process."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self._number = number
        self._around = around
        self._child: ChildProcess | None = None
        self._intake: Intake | None = None
        self._queues: tuple[str, ...] = ()
        #: With the intake, where there is a reactor.
        self._sprint: Sprint | None = None
        self._pause_s = 0.0
        self._is_resting = False
        self._is_busy = False
        self.thread = threading.Thread(target=self._run, name=f"shepherd-slot-{number}", daemon=True)

    @property
    def is_busy(self) -> bool:
        return self._is_busy or (self._sprint is not None and self._sprint.is_busy)

    @property
    def is_free(self) -> bool:
        return self._intake is not None and not (self.is_busy or self._is_resting)

    @property
    def idle_s(self) -> float:
        """For how many seconds it has been waiting at empty queues."""
        return self._intake.idle_s if self._intake is not None and self.is_free else 0.0

    def _run(self) -> None:
        while not self._around.stopping.is_set():
            try:
                self._step()
            except Exception:  # a daemon's loop: logs, backs off, goes on
                logger.exception("slot.failed", extra={"slot": self._number})
                self._around.stopping.wait(_FIRST_PAUSE_S)
        try:
            self._end_sprint()
        finally:
            self._close()

    def _step(self) -> None:
        if self._sprint is not None and self._go_on_from(self._sprint):
            return
        child = self._ready_child()
        if child is None or self._intake is None:
            return
        self._is_resting = self._must_rest()
        if self._is_resting:
            self._rest(self._intake)
            return
        delivery = self._take(child, self._intake)
        if delivery is None:
            return
        if self._may_begin():
            self._handle(delivery, self._intake)
        else:
            self._intake.release(delivery)

    def _take(self, child: ChildProcess, intake: Intake) -> Delivery | None:
        """Return what comes for this thread, which has the child to itself then."""
        if self._sprint is not None:
            self._sprint.arm(child)
        delivery = intake.take(wait_s=_TAKE_S)
        if delivery is None:
            self._overhear(child)
        elif self._sprint is not None:
            # What came while this thread had the child may still be taken.
            if self._sprint.takes(delivery):
                return None
            self._end_sprint()
        return delivery

    def _go_on_from(self, sprint: Sprint) -> bool:
        """Do what the sprint left to this thread; False if that was nothing."""
        begun = sprint.left()
        if begun is not None:
            self._execute(begun)
        elif sprint.is_late:
            self._send_unsaid(sprint)
        return begun is not None

    def _end_sprint(self) -> None:
        """Have the child for this thread, and nothing left of what the sprint has begun."""
        if self._sprint is None:
            return
        begun = self._sprint.disarm()
        if begun is not None:
            self._execute(begun)
        self._send_unsaid(self._sprint)

    def _send_unsaid(self, sprint: Sprint) -> None:
        unsaid = sprint.unsaid()
        if unsaid is not None:
            try:
                self._give(unsaid.attempt, [unsaid.reply], is_late=True)
            finally:
                self._around.hands.let_go(unsaid.attempt)

    def _must_rest(self) -> bool:
        around = self._around
        return bool(around.replies.trouble) or not around.withdrawn.is_known or around.sight.pause_s > 0

    def _rest(self, intake: Intake) -> None:
        """Take nothing for a moment: what was withdrawn isn't known, no reply could be kept, or others are to take."""
        with suppress(BrokerUnavailableError):
            intake.pause()
        if self._around.replies.trouble:
            self._around.stopping.wait(_TAKE_S)
            self._around.replies.look_after()
        elif self._around.withdrawn.wait_known(timeout_s=_TAKE_S):
            self._around.stopping.wait(min(_TAKE_S, self._around.sight.pause_s))

    def _may_begin(self) -> bool:
        # The control queue may have been lost while we waited.
        if self._around.stopping.is_set() or not self._around.withdrawn.wait_known(timeout_s=_LIST_S):
            return False
        self._around.sight.wait_known(timeout_s=_LIST_S)
        return True

    def _handle(self, delivery: Delivery, intake: Intake) -> None:
        attempt = Attempt(delivery)
        with self._busy_with(attempt, intake):
            if self._around.hands.take(attempt):
                self._answer(attempt, intake)
            else:
                self._join(attempt, intake)

    def _execute(self, begun: Begun) -> None:
        """Go on with what the child was given by the sprint."""
        assert self._intake is not None
        assert self._child is not None
        with self._busy_with(begun.attempt, self._intake):
            if self._sprint is not None:
                # Its confirm can't be waited for while this one runs for hours.
                self._send_unsaid(self._sprint)
            messages = Execution(self._around, begun, self._child, self._intake).run()
            if messages:
                self._reply(begun.attempt, messages, self._intake)

    @contextmanager
    def _busy_with(self, attempt: Attempt, intake: Intake) -> Iterator[None]:
        self._is_busy = True
        try:
            yield
        except Exception:
            self._give_up(attempt, intake)
            raise
        finally:
            self._around.hands.let_go(attempt)
            self._is_busy = False

    def _give_up(self, attempt: Attempt, intake: Intake) -> None:
        """Leave what went wrong here to others: to the broker or, once it is acked, to its lease."""
        try:
            # First: it may still execute what another worker gets next.
            self._drop_child()
        finally:
            if not attempt.is_acked:
                intake.release(attempt.delivery)

    def _answer(self, attempt: Attempt, intake: Intake) -> None:
        if attempt.token in self._around.withdrawn:
            messages = [withdrawn(attempt, worker=self._around.worker)]
        elif self._is_out_of_sight(attempt):
            if self._hand_back(attempt, intake):
                return
            messages = [unseen(attempt, worker=self._around.worker, why=self._around.sight.trouble)]
        elif (child := self._child_with(attempt)) is not None:
            messages = Execution(self._around, Begun(attempt, time.monotonic()), child, intake).run()
        else:
            intake.release(attempt.delivery)
            return
        if messages:
            self._reply(attempt, messages, intake)

    def _is_out_of_sight(self, attempt: Attempt) -> bool:
        """Tell whether the task needs what this worker doesn't see; without a token nobody could be answered."""
        sight = self._around.sight
        return bool(sight.trouble and attempt.token) and sight.is_needed_by(attempt.delivery.body, "data")

    def _hand_back(self, attempt: Attempt, intake: Intake) -> bool:
        """Give the task to others, and let them take it; False if that was done often enough."""
        times = attempt.delivery.headers.get("x-delivery-count", 0)
        if not self._around.sight.hand_back(times if isinstance(times, int) else 0, within_s=_PAUSED_S):
            return False
        logger.warning("task.handed_back", extra={"token": attempt.token, "why": self._around.sight.trouble})
        with suppress(BrokerUnavailableError):
            intake.pause()
        # Our other slots must not get it next.
        self._around.stopping.wait(_PAUSED_S)
        intake.release(attempt.delivery)
        return True

    def _reply(self, attempt: Attempt, messages: Sequence[Message], intake: Intake) -> None:
        has_child = self._child is not None and not self._child.has_ended
        if self._around.stopping.is_set() or self._must_rest() or not has_child:
            # The ack would bring the next one, only to be given back, which the broker counts.
            with suppress(BrokerUnavailableError):
                intake.pause()
        self._give(attempt, messages)

    def _give(self, attempt: Attempt, messages: Sequence[Message], *, is_late: bool = False) -> None:
        intake = self._intake
        assert intake is not None

        def ack() -> None:
            if not attempt.is_acked:
                attempt.is_acked = True
                intake.ack(attempt.delivery, goes_on=True)

        # The reply first, then the ack: a crash between the two repeats an attempt, the other order could lose a reply.
        # By whoever sends it: until this thread hears of the confirm, the next task can be here.
        self._around.replies.give(attempt, messages, ack=ack, is_late=is_late)

    def _join(self, again: Attempt, intake: Intake) -> None:
        """Settle a delivery of what is in hand already: it was published twice, or its connection broke.

        It isn't executed twice by one worker. Acking takes the broker's responsibility away, so it is claimed; the
        first delivery is acked by the slot that has it.
        """
        logger.info("task.delivered_again", extra={"token": again.token})
        first = self._around.hands.get(again.token)
        if first is not None and not first.is_claimed:
            if not self._around.outbox.deliver([claimed(again, worker=self._around.worker)]):
                return
            first.is_claimed = True
        intake.ack(again.delivery)

    def _child_with(self, attempt: Attempt) -> ChildProcess | None:
        """Return the child that has the delivery, or None when none could be started."""
        child = self._child
        while child is not None:
            if not attempt.begin(child.kill):
                return None
            if child.send(FrameKind.TASK, attempt.delivery.body):
                return child
            child = self._ready_child()
        return None

    def _ready_child(self) -> ChildProcess | None:
        """Return a child that waits for a task; None when there is none and a pause was made."""
        if self._child is not None and self._child.is_alive:
            return self._child
        if not self._is_busy:
            self._end_sprint()
        self._drop_child()
        if self._intake is not None and not self._is_busy:
            # What came with the last ack must not wait for a child that may never start.
            with suppress(BrokerUnavailableError):
                self._intake.pause()
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
                say(event)
        return "the worker ends"

    def _listen_to(self, offers: tuple[TaskOffer, ...]) -> None:
        queues = tuple(task_queue(offer.name) for offer in offers)
        # Not while a delivery of the old intake is in hand: it must be acked there.
        if queues == self._queues or self._is_busy:
            return
        if self._intake is not None:
            self._intake.close()
        self._intake, self._queues = self._around.broker.intake(queues), queues
        if self._around.broker.reactor is not None:
            self._sprint = Sprint(self._around, self._around.broker.reactor, self._intake, must_rest=self._must_rest)

    def _overhear(self, child: ChildProcess) -> None:
        """Pass on what is said between two tasks, so that no pipe fills up; it belongs to no attempt."""
        if self._sprint is not None:
            if self._sprint.is_busy:
                return
            self._end_sprint()
        if not child.has_ended:
            for event in child.receive(wait_s=0):
                say(event)

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _close(self) -> None:
        if self._intake is not None:
            self._intake.close()
        self._drop_child()
