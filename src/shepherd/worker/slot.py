"""One slot: takes a delivery, has it executed by its child, replies, and only then takes the next one."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from shepherd.broker.port import Delivery, Intake, Message
from shepherd.broker.topology import task_queue
from shepherd.errors import BrokerUnavailableError
from shepherd.worker.attempt import Attempt
from shepherd.worker.execution import Begun, Execution, claimed, unseen, withdrawn
from shepherd.worker.keeper import Keeper
from shepherd.worker.pipe import FrameKind
from shepherd.worker.process import ChildProcess
from shepherd.worker.sprint import Sprint
from shepherd.worker.surroundings import Surroundings

logger = logging.getLogger(__name__)

#: How long an idle slot waits for a delivery before it looks whether it should stop.
_TAKE_S: Final = 0.5
#: After this long no slot takes anything any more, once all are to pause.
_PAUSED_S: Final = 2 * _TAKE_S
#: How long a delivery waits for the list of withdrawn attempts before it is given back.
_LIST_S: Final = 5.0
#: After something went wrong here.
_PAUSE_S: Final = 1.0


class Slot:
    """One thread and one child process."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self._number = number
        self._around = around
        self._keeper = Keeper(number, around, on_hello=self._listen)
        self._intake: Intake | None = None
        self._queues: tuple[str, ...] = ()
        #: With the intake, where there is a reactor.
        self._sprint: Sprint | None = None
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
                self._around.stopping.wait(_PAUSE_S)
        try:
            self._pause()
            self._end_sprint()
        finally:
            self._close()

    def _pause(self) -> None:
        """Take nothing more for now, and give back what came unasked."""
        if self._intake is not None:
            with suppress(BrokerUnavailableError):
                self._intake.pause()

    def _step(self) -> None:
        if self._goes_on():
            return
        child = self._ready_child()
        if child is None or self._intake is None:
            return
        self._is_resting = self._must_rest()
        if self._is_resting:
            self._end_sprint()
            self._rest()
            return
        delivery = self._take(child, self._intake)
        if delivery is not None and self._may_begin():
            self._handle(delivery, self._intake)
        elif delivery is not None:
            self._intake.release(delivery)

    def _take(self, child: ChildProcess, intake: Intake) -> Delivery | None:
        """Return what comes for this thread, which has the child to itself then."""
        if self._sprint is not None:
            self._sprint.arm(child)
        delivery = intake.take(wait_s=_TAKE_S)
        if delivery is None and not self.is_busy:
            self._end_sprint()
            self._keeper.overhear()
        elif delivery is not None and self._sprint is not None:
            # What came while this thread had the child may still be taken.
            if self._sprint.takes(delivery):
                return None
            self._end_sprint()
        return delivery

    def _goes_on(self) -> bool:
        """Do what the sprint left to this thread; False if that was nothing."""
        begun = self._sprint.left() if self._sprint is not None else None
        if begun is not None:
            self._execute(begun)
        elif self._sprint is not None and self._sprint.is_late:
            self._send_unsaid()
        return begun is not None

    def _end_sprint(self) -> None:
        """Have the child for this thread, and nothing left of what the sprint has begun."""
        begun = self._sprint.disarm() if self._sprint is not None else None
        if begun is not None:
            self._execute(begun)
        self._send_unsaid()

    def _send_unsaid(self) -> None:
        if self._sprint is not None and self._intake is not None and (unsaid := self._sprint.unsaid()) is not None:
            ack = partial(unsaid.attempt.ack, self._intake)
            self._around.replies.give_again(unsaid.attempt, unsaid.reply, ack=ack)

    def _must_rest(self) -> bool:
        around = self._around
        return bool(around.replies.trouble) or not around.withdrawn.is_known or around.sight.pause_s > 0

    def _rest(self) -> None:
        """Take nothing for a moment: what was withdrawn isn't known, no reply could be kept, or others are to take."""
        self._pause()
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
        assert self._keeper.child is not None
        with self._busy_with(begun.attempt, self._intake):
            # Nobody looks after the reply before it while this one runs for hours.
            self._send_unsaid()
            if begun.failure is not None:
                raise begun.failure
            messages = Execution(self._around, begun, self._keeper.child, self._intake).run()
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
            self._keeper.drop()
        finally:
            if not attempt.is_acked:
                self._release(attempt, intake)

    def _release(self, attempt: Attempt, intake: Intake) -> None:
        # Out of hand first: another slot that is given it must not take it for answered.
        self._around.hands.let_go(attempt)
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
            self._release(attempt, intake)
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
        self._pause()
        # Our other slots must not get it next.
        self._around.stopping.wait(_PAUSED_S)
        self._release(attempt, intake)
        return True

    def _reply(self, attempt: Attempt, messages: Sequence[Message], intake: Intake) -> None:
        has_child = self._keeper.child is not None and not self._keeper.child.has_ended
        if self._around.stopping.is_set() or self._must_rest() or not has_child:
            # The ack would bring the next one, only to be given back, which the broker counts.
            self._pause()
        # The reply first, then the ack: a crash between the two repeats an attempt, the other order could lose a reply.
        # By whoever sends it: until this thread hears of the confirm, the next task can be here.
        self._around.replies.give(attempt, messages, ack=partial(attempt.ack, intake), on_waiting=self._leave_next)

    def _leave_next(self) -> None:
        """Leave to others what came with an ack, while the reply before it waits for the broker."""
        # Only then: a broker that reads nothing, as in an alarm, wouldn't answer, and the connection would be cut.
        if self._intake is not None and self._intake.has_untaken:
            self._pause()

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
        child = self._keeper.child
        while child is not None:
            if not attempt.begin(child.kill):
                return None
            if child.send(FrameKind.TASK, attempt.delivery.body):
                return child
            child = self._ready_child()
        return None

    def _ready_child(self) -> ChildProcess | None:
        """Return a child that waits for a task; None when there is none and a pause was made."""
        child = self._keeper.child
        if child is not None and child.is_alive:
            return child
        if not self._is_busy:
            self._end_sprint()
            self._keeper.overhear()
            # What came with the last ack must not wait for a child that may never start.
            self._pause()
        return self._keeper.start()

    def _listen(self, hello: bytes) -> None:
        """Take the tasks that a child offers."""
        queues = tuple(task_queue(offer.name) for offer in self._around.welcome(hello))
        # Not while a delivery of the old intake is in hand: it must be acked there.
        if queues == self._queues or self._is_busy:
            return
        if self._intake is not None:
            self._intake.close()
        self._intake, self._queues = self._around.broker.intake(queues), queues
        if self._around.broker.reactor is not None:
            self._sprint = Sprint(self._around, self._around.broker.reactor, self._intake, must_rest=self._must_rest)

    def _close(self) -> None:
        if self._intake is not None:
            self._intake.close()
        self._keeper.drop()
