"""The real Task Publisher's parts, put together for one step and taken apart again: each step is run once for each
database and memory that it meets, and once more for each call to a port before which it may die."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from django.contrib.auth.models import User
from django.db import connection, transaction

from shepherd.broker.port import Message, Subscription
from shepherd.broker.topology import ALL_WORKERS_KEY, BEATS, CONTROL_EXCHANGE, EXCHANGES, REPLIES, STANDING_QUEUES
from shepherd.domain.status import TaskStatus
from shepherd.errors import ConflictError
from shepherd.pipelines import handles, sql
from shepherd.pipelines.advance import ATTEMPTS
from shepherd.pipelines.intents import Intent
from shepherd.pipelines.ownership import Owner
from shepherd.publisher import hearing
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.ears import Ears
from shepherd.publisher.relay import Relay
from shepherd.publisher.watch import Watch
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.wire.control import Withdrawals
from shepherd.wire.envelope import TaskEnvelope, TaskError
from tests.model import checks
from tests.model.ports import Died, Fate, MortalBroker, mortal_database
from tests.model.rows import Rows, load, read, read_audit
from tests.model.sayings import NAMES, WORKER_KEYS, Hearing, heartbeats, reply_bytes, said_in, worker_id
from tests.model.state import Memory, Said
from tests.support.engine import Heard

#: Takes over whatever it likes: a new owner is a new epoch, whoever it is.
_OWNER: Final = Owner(name="p", lease=timedelta(minutes=1), is_alone=True)


class Step(NamedTuple):
    """Something that a Task Publisher does, or that is asked of the database."""

    name: str
    #: What lies in the queue of replies; only `replies` takes it.
    replies: tuple[Said, ...] = ()
    #: What each worker says of itself meanwhile: what it executes, "" for nothing.
    beats: tuple[str, ...] = ()
    #: Of the owner that a flow writes for.
    epoch: int = 0

    def __str__(self) -> str:
        epoch = [f"for the owner of epoch {self.epoch}"] if self.epoch else []
        return " ".join(["the Task Publisher:", self.name, *map(str, self.replies), *epoch])


class Told(NamedTuple):
    """What was said to workers."""

    tokens: frozenset[str]
    #: Whether they are the whole list.
    is_complete: bool
    #: The only worker that was told, by its place; None where all were.
    worker: int | None


class Outcome(NamedTuple):
    """What a step has done to the world around it."""

    rows: Rows
    memory: Memory
    #: Tokens, in the order in which the broker got them.
    published: tuple[str, ...]
    told: tuple[Told, ...]
    #: Replies that were not acked.
    kept: tuple[Said, ...]
    #: Where it died; empty if it didn't.
    died: str
    #: What must not be, in a sentence; empty if all is well.
    broken: str


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a Task Publisher is made of. A mutant has another part in one place."""

    relay: type[Relay] = Relay
    withdrawing: type[Withdrawing] = Withdrawing
    ears: type[Ears] = Ears
    subscription: Callable[[Subscription], Subscription] = lambda subscription: subscription
    #: In force while a step runs.
    patched: Callable[[Dispatch], AbstractContextManager[None]] = lambda _: nullcontext()


class Publisher:
    """Runs steps, and remembers what came of them."""

    def __init__(self, parts: Parts, *, is_led: bool = False) -> None:
        self._parts = parts
        self._led = frozenset(NAMES) if is_led else frozenset()
        self._known: dict[tuple[Rows, Memory, Step], list[Outcome]] = {}
        #: How many times real code was run.
        self.runs = 0

    def outcomes(self, rows: Rows, memory: Memory, step: Step) -> list[Outcome]:
        """Return what may come of a step: first when it goes through, then when it dies before its 2nd, 3rd … call."""
        part = _needed(memory, step)
        if step.name == "watch":
            # Whether anything waits there is all that it asks.
            step = step._replace(replies=() if memory.is_deaf else step.replies[:1])
        key = (rows, part, step)
        if key not in self._known:
            self._known[key] = list(self._all(rows, part, step))
        return [outcome._replace(memory=_joined(memory, part, outcome)) for outcome in self._known[key]]

    def _all(self, rows: Rows, memory: Memory, step: Step) -> Iterator[Outcome]:
        fate = Fate()
        yield self._run(rows, memory, step, fate)
        # Before the first call nothing has happened: a plain crash.
        for place in range(2, len(fate.calls) + 1):
            yield self._run(rows, memory, step, Fate(dies_before=place))

    def _run(self, rows: Rows, memory: Memory, step: Step, fate: Fate) -> Outcome:
        self.runs += 1
        with transaction.atomic():
            load(rows.with_leases_over() if step.name == "lease" else rows)
        bench = _Bench(rows, memory, step, fate, self._parts, self._led)
        died = ""
        with self._parts.patched(bench.dispatch), mortal_database(fate):
            try:
                bench.perform(step)
            except Died as death:
                died = str(death)
        return bench.outcome(died)


def _needed(memory: Memory, step: Step) -> Memory:
    """Return the part of what is remembered that a step looks at."""
    return Memory(
        waiting=memory.waiting if step.name == "send" else (),
        confirmed=memory.confirmed if step.name == "confirm" else (),
        told=memory.told if step.name == "tell" else frozenset(),
        is_deaf=memory.is_deaf or step.name != "watch",
    )


def _joined(before: Memory, part: Memory, outcome: Outcome) -> Memory:
    """Return what is remembered after a step that looked at a part of it."""
    after = outcome.memory
    if outcome.died:
        return after
    return Memory(
        waiting=after.waiting if part.waiting else before.waiting + after.waiting,
        confirmed=after.confirmed if part.confirmed else before.confirmed + after.confirmed,
        told=after.told if part.told or not before.told else before.told,
        is_deaf=before.is_deaf and after.is_deaf,
    )


@dataclass
class _Bench:
    """Everything that one step needs, with its hands on the broker and the database."""

    rows: Rows
    memory: Memory
    step: Step
    fate: Fate
    parts: Parts
    led: frozenset[str]
    published: list[str] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = MortalBroker(self.fate, watch=self._see)
        self.broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        for said in self.step.replies:
            self.broker.server.route(Message(routing_key=REPLIES, body=reply_bytes(said)))
        self.dispatch = Dispatch(self.broker)
        self.dispatch.post(_intents(self.memory.waiting))
        self.dispatch._confirmed.extend(self.memory.confirmed)
        self.withdrawing = self.parts.withdrawing(self.broker)
        self.withdrawing._told.update(self.memory.told)
        self.relay = self.parts.relay(
            self.broker,
            Heard(),
            leads=lambda _: self.led,
            is_followed=False,
            send=self.dispatch.post,
            draw=lambda: 0.0,
        )
        self.hearing = Hearing(self.parts.ears, has_heard=not self.memory.is_deaf)

    def perform(self, step: Step) -> None:
        steps: dict[str, Callable[[], object]] = {
            "start": self.relay.start,
            "replies": self._hear_replies,
            "send": self.dispatch.send,
            "confirm": self.dispatch.confirm,
            "resend": self.relay.resend,
            "tell": self.withdrawing.tell_new,
            "welcome": lambda: self.withdrawing.tell_all_to({worker_id(0)}),
            "watch": self._watch,
            "lease": self._pass_a_lease,
            "take over": lambda: _OWNER.take([self.rows.run()["number"]]),
            "lead": self._lead,
            "give up": self._give_up,
            "cancel": self._cancel,
            "resume": self._resume,
        }
        steps[step.name]()

    def _hear_replies(self) -> None:
        subscription = self.broker.subscribe(REPLIES, prefetch=hearing.REPLIES_AT_ONCE)
        hearing.hear_replies(self.parts.subscription(subscription), self.relay)

    def _watch(self) -> None:
        watch = Watch(self.broker, self.relay, self.hearing.ears, database_time=self.hearing.database_time)
        watch.look()
        self.hearing.second()
        watch.look()

    def _pass_a_lease(self) -> None:
        """All workers say all the time what they have, and all of it is heard."""
        for body in heartbeats(self.step.beats):
            self.broker.server.route(Message(routing_key=BEATS, body=body))
        hearing.hear_beats(self.broker.subscribe(BEATS, prefetch=hearing.AT_ONCE), self.dispatch, self.withdrawing)
        self.hearing.lease()
        self._watch()

    def _lead(self) -> None:
        self.relay.publish(self._current(), epoch=self.step.epoch)

    def _give_up(self) -> None:
        error = TaskError(code="publisher_failed", message="given up")
        self.relay.fail(self.rows.run()["number"], error, task_number=self._current(), epoch=self.step.epoch)

    def _current(self) -> int:
        """Return the task at which the run is; the last one when all have succeeded."""
        tasks = self.rows.each_task()
        current = next((task for task in tasks if task["status"] != TaskStatus.SUCCEEDED), tasks[-1])
        return int(current["number"])

    def _cancel(self) -> None:
        with suppress(ConflictError):
            handles.cancel(self.rows.run()["number"], by=User.objects.get(), now=datetime.now(UTC))

    def _resume(self) -> None:
        with suppress(ConflictError):
            handles.resume(self.rows.run()["number"], contexts={}, by=User.objects.get(), now=datetime.now(UTC))

    def outcome(self, died: str) -> Outcome:
        self.broker.close()
        rows, names = read()
        kept = tuple(said_in(stored.message.body) for stored in self.broker.server.queues[REPLIES].ready)
        memory = Memory() if died else self._remembered(names)
        broken = [*self.broken, *checks.step_faults(self.rows, rows, read_audit())]
        published = tuple(names.get(token, token) for token in self.published)
        broken += [
            f"{token} was published and isn't written down" for token in published if token not in names.values()
        ]
        return Outcome(rows, memory, published, tuple(self.told), kept, died, "; ".join(broken))

    def _remembered(self, names: dict[str, str]) -> Memory:
        return Memory(
            waiting=tuple(names.get(intent.token, intent.token) for intent in self.dispatch._waiting),
            confirmed=tuple(names.get(token, token) for token in self.dispatch._confirmed),
            told=frozenset(self.withdrawing._told),
            is_deaf=self.memory.is_deaf and self.step.name != "lease",
        )

    def _see(self, message: Message) -> None:
        if message.type == "task":
            envelope = TaskEnvelope.parse(message.body)
            # What others could see at this moment.
            committed = self.rows if connection.in_atomic_block else read()[0]
            self.published.append(envelope.token)
            self.broken += checks.publishing_faults(committed, envelope)
        elif message.exchange == CONTROL_EXCHANGE:
            said, key = Withdrawals.parse(message.body), message.routing_key
            worker = None if key == ALL_WORKERS_KEY else WORKER_KEYS.index(key)
            self.told.append(Told(frozenset(said.tokens), said.is_complete, worker))


def _intents(tokens: Sequence[str]) -> list[Intent]:
    found = {row["token"]: row for row in sql.rows(f"{ATTEMPTS} WHERE a.token IN {sql.places(tokens)}", tokens)}
    return [Intent.of_row(found[token]) for token in tokens]
