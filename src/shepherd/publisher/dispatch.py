"""Publishing what is written down, in a thread of its own: recording needn't wait for the broker's confirms."""

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from shepherd.broker.port import LARGEST_MESSAGE, Broker, Message, Presence
from shepherd.broker.topology import task_queue, task_queue_spec
from shepherd.errors import ConfigurationError, QueueMissingError, ShepherdError
from shepherd.pipelines import unconfirmed
from shepherd.pipelines.intents import Intent

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 500


class Dispatch:
    """Publishes intents. What fails, or is lost with this process, stays written down and is published again."""

    def __init__(self, broker: Broker, *, look_every_s: float = 60.0) -> None:
        """`look_every_s` is how often at most a worker's word makes it look whether that worker's queues are there."""
        self._broker = broker
        self._look_every_s = look_every_s
        self._declared: set[str] = set()
        #: When each task's queue was looked for, on the monotonic clock.
        self._looked_at: dict[str, float] = {}
        #: Tasks whose queue was found missing, with the time, until somebody has dealt with it.
        self._lost: dict[str, datetime] = {}
        self._waiting: deque[Intent] = deque()
        self._confirmed: deque[str] = deque()
        #: Tokens of what waits, is being published, or was confirmed and not written down yet: while the broker is away
        #: each sweep finds the same intents again.
        self._in_hand: set[str] = set()
        self._changed = threading.Condition()
        self._writing = threading.Lock()

    def post(self, intents: Sequence[Intent]) -> None:
        """Have these published soon, in this order, by whoever calls `send`."""
        with self._changed:
            new = [intent for intent in intents if intent.token not in self._in_hand]
            self._in_hand.update(intent.token for intent in new)
            self._waiting.extend(new)
            self._changed.notify_all()

    def send(self) -> None:
        """Publish what was posted, all at once; wait for it for a second at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, 1.0)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
        self.publish(batch)

    def publish(self, intents: Sequence[Intent]) -> None:
        """Publish these now. Says in the log what the broker didn't take."""
        unconfirmed_tokens = {intent.token for intent in intents}
        try:
            there = self.declare({intent.name for intent in intents})
            unconfirmed_tokens -= self._publish([intent for intent in intents if intent.name in there])
        except ShepherdError as error:
            logger.warning("tasks.unpublished", extra={"tasks": len(intents), "reason": str(error)})
        finally:
            with self._changed:
                self._in_hand -= unconfirmed_tokens

    def _publish(self, intents: Sequence[Intent]) -> set[str]:
        """Publish these, and return the tokens of those that the broker has."""
        if not intents:
            return set()
        now = datetime.now(UTC)
        messages, intents = _sendable(intents, now=now)
        failures = self._broker.publish(messages)
        taken = [intent.token for intent, failure in zip(intents, failures, strict=True) if failure is None]
        self._confirmed.extend(taken)
        for intent, failure in zip(intents, failures, strict=True):
            if failure is None:
                continue
            logger.warning("task.unconfirmed", extra={"task": intent.name, "reason": str(failure)})
            if isinstance(failure, QueueMissingError):
                self._lose({intent.name}, at=now)
        return set(taken)

    def confirm(self) -> None:
        """Write down which attempts the broker has; those that were answered meanwhile need no word."""
        with self._writing:
            tokens = list(self._confirmed)
            unconfirmed.confirm(tokens, now=datetime.now(UTC))
            for token in tokens:
                self._confirmed.remove(token)
        with self._changed:
            self._in_hand -= set(tokens)

    def declare(self, names: Collection[str]) -> set[str]:
        """Create the queues of these tasks, and return those that have one; the log says why the others have none.

        What this object has declared before isn't asked again. One that wasn't there may have been deleted: see
        `take_lost`.

        Raises:
            BrokerUnavailableError: No answer in time. Call again.
        """
        new = set(names) - self._declared
        if new:
            self.look(new)
        for name in sorted(new):
            try:
                self._broker.declare(queues=[task_queue_spec(name)])
                self._declared.add(name)
            except ConfigurationError as error:
                # One that can't be declared must not keep those of other tasks waiting.
                logger.error("queue.refused", extra={"task": name, "reason": str(error)})  # noqa: TRY400  # It says all.
        return set(names) & self._declared

    def serve(self, names: Collection[str]) -> None:
        """Have the queues of these tasks, which a worker serves, there.

        Looks also for those that were declared before, as somebody may have deleted them while nobody served them:
        `manage.py prune` does.

        Raises:
            BrokerUnavailableError: No answer in time. Call again.
        """
        before = time.monotonic() - self._look_every_s
        due = {name for name in set(names) & self._declared if self._looked_at.get(name, before) <= before}
        if due:
            self.look(due)
        self.declare(names)

    def look(self, names: Collection[str]) -> None:
        """Find out which of these tasks have no queue, without creating it."""
        by_queue = {task_queue(name): name for name in sorted(names)}
        now = datetime.now(UTC)
        self._looked_at |= dict.fromkeys(names, time.monotonic())
        compared = self._broker.compare(queues=[task_queue_spec(name) for name in by_queue.values()])
        self._lose({by_queue[each.name] for each in compared if each.presence == Presence.MISSING}, at=now)

    def take_lost(self) -> dict[str, datetime]:
        """Return the tasks whose queue was found missing since the last call, with the time; their queues exist again.

        What they held is to be published again.
        """
        lost = dict(self._lost)
        there = self.declare(lost)
        for name in there:
            self._lost.pop(name, None)
        return {name: at for name, at in lost.items() if name in there}

    def _lose(self, names: Collection[str], *, at: datetime) -> None:
        self._declared -= set(names)
        self._lost |= dict.fromkeys(names, at)


def _sendable(intents: Sequence[Intent], *, now: datetime) -> tuple[list[Message], list[Intent]]:
    """Return the messages of these, without those of which none can be made: they must not keep the others waiting."""
    sendable = list[tuple[Message, Intent]]()
    for intent in intents:
        try:
            message = intent.message(now=now)
        except Exception:
            logger.exception("task.unsendable", extra={"task": intent.name, "run": intent.row["run_number"]})
            continue
        if len(message.body) > LARGEST_MESSAGE:
            extra = {"task": intent.name, "run": intent.row["run_number"], "bytes": len(message.body)}
            logger.error("task.unsendable", extra=extra)
            continue
        sendable.append((message, intent))
    return [message for message, _ in sendable], [intent for _, intent in sendable]
