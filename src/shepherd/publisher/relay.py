"""Publish, record, advance: the engine. It remembers nothing that the database doesn't hold."""

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from django.db import DataError, IntegrityError, InterfaceError, InternalError, OperationalError, ProgrammingError

from shepherd.broker.port import Broker, Delivery, Message
from shepherd.broker.topology import DEAD_EXCHANGE
from shepherd.errors import DatabaseUnavailableError, ProtocolError
from shepherd.pipelines import dead, leases, overdue, recording, starting, unconfirmed, withdrawn
from shepherd.pipelines.advance import Moved
from shepherd.pipelines.intents import Intent
from shepherd.pipelines.setbacks import Draw
from shepherd.wire.control import DeadLetter
from shepherd.wire.envelope import Reply, TaskError, parse_reply
from shepherd.wire.value import Value

logger = logging.getLogger(__name__)

#: How many accepted runs one transaction starts.
_STARTS_AT_ONCE: Final = 200
#: An intent this old is published again; a confirm takes milliseconds.
_CONFIRM_PATIENCE: Final = timedelta(seconds=5)

#: How a database, or its driver, says that it won't take a value.
REFUSALS: Final = (DataError, IntegrityError, OverflowError, ValueError)
#: How it says that it takes nothing now: it is away, lets nobody write, as after a failover, or has not been migrated.
UNAVAILABLE: Final = (OperationalError, InterfaceError, InternalError, ProgrammingError)


#: Publishes what is written down, now or soon.
Send = Callable[[Sequence[Intent]], None]


class Listener(Protocol):
    """Who wants to know at once what the relay has moved. Told after the commit, from any thread; must not block."""

    def task_ended(self, task_number: int) -> None: ...
    def run_led(self, run_number: int) -> None: ...
    def fetch_due(self, run_number: int, data_url: str) -> None: ...
    def attempts_withdrawn(self) -> None: ...


class Relay:
    """Moves runs on. Every method may be called from any thread and again after a crash."""

    def __init__(
        self,
        broker: Broker,
        listener: Listener,
        *,
        leads: starting.Leads,
        send: Send,
        is_followed: bool = True,
        draw: Draw = random.random,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._broker = broker
        self._listener = listener
        self._leads = leads
        self._send = send
        self._is_followed = is_followed
        self._draw = draw
        #: Where the next `resend` begins; anywhere would do.
        self._resent_up_to = 0
        self._clock = clock

    def start(self) -> int:
        """Start every accepted run, in the order of acceptance, and return how many have their first task published."""
        count = 0
        while True:
            now = self._clock()
            moved = starting.start(leads=self._leads, is_followed=self._is_followed, limit=_STARTS_AT_ONCE, now=now)
            self._go_on(moved)
            count += len(moved.intents)
            if moved.started < _STARTS_AT_ONCE:
                return count

    def set_data(self, run_number: int, data: Value) -> None:
        """Give a run its fetched data, and publish its first task."""
        self._go_on(starting.set_data(run_number, data, now=self._clock()))

    def publish(
        self,
        task_number: int,
        *,
        context: Mapping[str, Any] | None = None,
        data: Value | None = None,
        epoch: int | None = None,
    ) -> None:
        """Publish a pending task, with another context or input than its own if given.

        A task that was published before, by whomever, is left as it is: whoever comes first publishes. So is one whose
        run a Task Publisher later than that of `epoch` drives.
        """
        self._go_on(starting.open_attempt(task_number, context=context, data=data, epoch=epoch, now=self._clock()))

    def context_of(self, task_number: int) -> dict[str, Any] | TaskError:
        """Return the context that a task is published with, or why it can't be."""
        return starting.context_of(task_number, now=self._clock())

    def fail(
        self, run_number: int, error: TaskError, *, task_number: int | None = None, epoch: int | None = None
    ) -> None:
        """End a run that can't go on. One that has ended, or has an owner later than `epoch`, is left as it is."""
        self._go_on(starting.fail(run_number, error, task_number=task_number, epoch=epoch, now=self._clock()))

    def resend(self) -> int:
        """Publish again every intent that was not confirmed in time; return how many."""
        before = self._clock() - _CONFIRM_PATIENCE
        due = unconfirmed.unconfirmed(before=before, after_number=self._resent_up_to, limit=_STARTS_AT_ONCE)
        # In turn, so that some that no queue takes don't keep the others waiting.
        self._resent_up_to = due[-1].row["attempt_number"] if len(due) == _STARTS_AT_ONCE else 0
        if due:
            self._send(due)
        return len(due)

    def retry(self) -> None:
        """Publish every task again whose pause after a failed attempt is over."""
        self._go_on_while_full(lambda: overdue.open_retries(now=self._clock()))

    def forget_unqueued(self) -> None:
        """Take what no queue holds off the list of withdrawn attempts."""
        withdrawn.forget_unqueued(now=self._clock())

    def end_overdue(self) -> None:
        """Give up what has waited or run for longer than its policy allows. Only for who would have heard of it."""
        for end in (overdue.end_waits, overdue.end_runs_beyond_limit):
            self._go_on_while_full(partial(end, now=self._clock(), draw=self._draw))

    def has_silent(self) -> bool:
        """Return whether there is something that only silence speaks against."""
        now = self._clock()
        return leases.are_over() or overdue.has_overdue(now=now) or unconfirmed.has_missed(now=now)

    def end_leases(self) -> None:
        """Give up every claimed attempt whose worker is silent. Only to be called by who would have heard it."""
        self._go_on_while_full(lambda: leases.end_leases(now=self._clock(), draw=self._draw))

    def resend_missed(self) -> int:
        """Publish again what no queue has any more, as silence says; return how many. Only for who would have heard."""
        missed = unconfirmed.missed(now=self._clock(), limit=_STARTS_AT_ONCE)
        if missed:
            logger.warning("tasks.missed", extra={"tasks": len(missed)})
            self._send(missed)
        return len(missed)

    def resend_lost(self, names: Collection[str], *, missing_at: datetime) -> int:
        """Publish again all that lay in the queues of these tasks, which were found missing; return how many."""
        count = 0
        while lost := unconfirmed.of_lost_queues(
            names, missing_at=missing_at, now=self._clock(), limit=_STARTS_AT_ONCE
        ):
            self._send(lost)
            count += len(lost)
        return count

    def give_up_delivery(self, token: str, error: TaskError) -> bool:
        """End the attempt whose message the broker gave up; False if nobody knows it."""
        moved = dead.record_dead_letter(token, error, now=self._clock(), draw=self._draw)
        if moved is not None:
            self._go_on(moved)
        return moved is not None

    def take_replies(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Record a batch of replies and publish what follows; return the deliveries that may be acked now.

        Raises:
            DatabaseUnavailableError: Nothing was recorded. Give the deliveries back; they come again.
        """
        readable = [(delivery, reply) for delivery in deliveries if (reply := self._read(delivery)) is not None]
        try:
            self._record([reply for _, reply in readable])
        except DatabaseUnavailableError:
            raise
        except Exception:  # whatever it is: one reply must not keep the others waiting
            logger.exception("replies.batch_refused", extra={"replies": len(readable)})
            self._record_one_by_one(readable)
        return list(deliveries)

    def _record(self, replies: Sequence[Reply]) -> None:
        if not replies:
            return
        try:
            moved = recording.record(replies, now=self._clock(), draw=self._draw)
        except UNAVAILABLE as error:
            raise DatabaseUnavailableError(str(error)) from error
        if moved.dropped:
            logger.warning("replies.dropped", extra={"replies": moved.dropped})
        self._go_on(moved)

    def _record_one_by_one(self, pairs: Sequence[tuple[Delivery, Reply]]) -> None:
        unforeseen: Exception | None = None
        for delivery, reply in pairs:
            try:
                self._record([reply])
            except DatabaseUnavailableError:
                raise
            except REFUSALS as error:
                self._bury(delivery, f"the database refuses it: {error}")
            except Exception as error:  # noqa: BLE001  # It comes once more, and then goes to where people look.
                if not delivery.is_redelivered:
                    unforeseen = error
                else:
                    self._bury(delivery, f"it can't be recorded: {error!r}")
        if unforeseen is not None:
            raise unforeseen

    def _read(self, delivery: Delivery) -> Reply | None:
        try:
            return parse_reply(delivery.body)
        except ProtocolError as error:
            self._bury(delivery, str(error))
            return None

    def _bury(self, delivery: Delivery, reason: str) -> None:
        logger.error("reply.dead", extra={"reason": reason})
        # As much of it as is kept: the whole, which JSON makes six times as large, may be more than can be sent, and
        # would come again for ever, before all other replies.
        body = DeadLetter(reason=reason, source=delivery.queue, body=delivery.body[: dead.BYTES_KEPT]).to_bytes()
        (failure,) = self._broker.publish([Message(exchange=DEAD_EXCHANGE, routing_key="", body=body, type="dead")])
        if failure is not None:
            raise failure

    def _go_on_while_full(self, step: Callable[[], Moved]) -> None:
        while True:
            moved = step()
            self._go_on(moved)
            if not moved.is_full:
                return

    def _go_on(self, moved: Moved) -> None:
        if moved.intents:
            self._send(moved.intents)
        for number in moved.ended_tasks:
            self._listener.task_ended(number)
        for number in moved.led_runs:
            self._listener.run_led(number)
        for number, url in moved.to_fetch.items():
            self._listener.fetch_due(number, url)
        if moved.has_withdrawn:
            self._listener.attempts_withdrawn()
