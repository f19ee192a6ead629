"""A Task Publisher and workers over one shipped broker, each of which lives until it is killed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import connection

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.memory_server import MemoryServer
from shepherd.broker.port import Delivery, Message
from shepherd.broker.topology import ALL_WORKERS_KEY, BEATS, CONTROL_EXCHANGE, REPLIES, task_queue, worker_key
from shepherd.publisher import hearing
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.ears import Ears
from shepherd.publisher.relay import Relay
from shepherd.publisher.watch import Watch
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.wire.control import Withdrawals
from shepherd.wire.envelope import TaskEnvelope
from tests.model import checks
from tests.model.ports import Fate, MortalBroker
from tests.model.rows import read_runs
from tests.model.sayings import NAMES, Hearing, reply_bytes, worker_id
from tests.model.state import Said
from tests.support.engine import Heard

#: Longer than what was published may stay unconfirmed.
_PATIENCE: Final = timedelta(seconds=10)


class TaskPublisher:
    """Everything that one remembers; another one after it begins with nothing."""

    def __init__(self, server: MemoryServer) -> None:
        self.broker = MortalBroker(Fate(), watch=_check, server=server)
        self.dispatch = Dispatch(self.broker)
        self.withdrawing = Withdrawing(self.broker)
        self._ahead = timedelta()
        self.relay = Relay(
            self.broker,
            Heard(),
            leads=lambda _: frozenset(),
            send=self.dispatch.post,
            is_followed=False,
            draw=lambda: 0.0,
            clock=lambda: datetime.now(UTC) + self._ahead,
        )
        self.hearing = Hearing(Ears, has_heard=False)
        self._replies = self.broker.subscribe(REPLIES, prefetch=hearing.REPLIES_AT_ONCE)
        self._beats = self.broker.subscribe(BEATS, prefetch=hearing.AT_ONCE)

    @property
    def steps(self) -> dict[str, Callable[[], object]]:
        """What it does by itself, by name."""
        return {
            "start": self.relay.start,
            "send": self._send,
            "confirm": self.dispatch.confirm,
            "resend": self._resend,
            "record": self._record,
            "tell": self.withdrawing.tell_new,
            "watch": self.watch,
        }

    def watch(self) -> None:
        watch = Watch(self.broker, self.relay, self.hearing.ears, database_time=self.hearing.database_time)
        watch.look()
        self.hearing.second()
        watch.look()

    def hear_a_lease(self) -> None:
        """Take the heartbeats that are there, and listen for as long as a lease lasts."""
        hearing.hear_beats(self._beats, self.dispatch, self.withdrawing)
        self.hearing.lease()
        self.watch()

    def _send(self) -> None:
        if self.dispatch._waiting:
            self.dispatch.send()

    def _resend(self) -> None:
        self._ahead = _PATIENCE
        self.relay.resend()
        self._ahead = timedelta()

    def _record(self) -> None:
        if self.broker.server.depth(REPLIES):
            hearing.hear_replies(self._replies, self.relay)


def _check(message: Message) -> None:
    if message.type == "task":
        assert not connection.in_atomic_block, "published before the intent was committed"
        envelope = TaskEnvelope.parse(message.body)
        committed = next(rows for rows in read_runs() if rows.run()["number"] == envelope.run_number)
        assert not list(checks.publishing_faults(committed, envelope))


class WorkerProcess:
    """One slot. Its spool outlives it."""

    def __init__(self, server: MemoryServer, place: int, *, spool: list[Said]) -> None:
        self._broker = MemoryBroker(server)
        keys = [ALL_WORKERS_KEY, worker_key(worker_id(place))]
        self._control = self._broker.listen(CONTROL_EXCHANGE, binding_keys=keys)
        self._intake = self._broker.intake([task_queue(name) for name in NAMES])
        self._delivery: Delivery | None = None
        self.spool = spool
        self.listed: set[str] | None = None
        #: What it executes, and has yet to answer for.
        self.token = ""

    @property
    def is_free(self) -> bool:
        return self._delivery is None and not self.token

    def hear(self) -> None:
        """Do what the Task Publisher says: end what was withdrawn."""
        for delivery in self._control.take(at_most=100, wait_s=0):
            said = Withdrawals.parse(delivery.body)
            if said.is_complete:
                self.listed = set(said.tokens)
            elif self.listed is not None:
                self.listed.update(said.tokens)
            self._control.ack([delivery])
        if self.token and self.token in (self.listed or ()):
            self.finish("withdrawn")

    def take(self) -> None:
        """Begin what comes, or refuse it."""
        if self.listed is None or not self.is_free:
            return
        self._delivery = self._intake.take(wait_s=0)
        if self._delivery is not None:
            self.token = self._delivery.message_id
            if self.token in self.listed:
                self.finish("withdrawn")

    def start(self) -> None:
        if self.token:
            self._say(Said("started", self.token))

    def claim(self) -> None:
        if self.token and self._delivery is not None:
            self._say(Said("claimed", self.token))
            self._ack()

    def finish(self, kind: str) -> None:
        if self.token:
            self.spool.append(Said(kind, self.token))
            self.token = ""

    def answer(self) -> None:
        """Send what lies in the spool, and only then ack."""
        while self.spool:
            self._say(self.spool[0])
            self.spool.pop(0)
        if not self.token:
            self._ack()

    def die(self) -> None:
        self._control.close()
        self._broker.close()

    def _ack(self) -> None:
        if self._delivery is not None:
            self._intake.ack(self._delivery)
            self._delivery = None

    def _say(self, said: Said) -> None:
        assert self._broker.publish([Message(routing_key=REPLIES, body=reply_bytes(said))]) == [None]
