"""The real Task Publisher's parts, put together for one step and taken apart again: each step is run once for each
database and memory that it meets, and once more for each call to a port before which it may die."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.db import connection, transaction

from shepherd.broker.port import Message, Subscription
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, EXCHANGES, REPLIES, STANDING_QUEUES
from shepherd.domain.status import TaskStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS
from shepherd.pipelines.intents import Intent
from shepherd.publisher import hearing
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.relay import Relay
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.wire.control import Withdrawals
from shepherd.wire.envelope import Finished, Reply, Started, TaskEnvelope, TaskError, Withdrawn, parse_reply
from shepherd.wire.value import Inline
from tests.model import checks
from tests.model.ports import Died, Fate, MortalBroker, mortal_database
from tests.model.rows import Rows, load, read, read_audit
from tests.model.state import Memory, Said
from tests.support.engine import Heard

_WORKER: Final = "w"


class Step(NamedTuple):
    """Something that a Task Publisher does by itself."""

    name: str
    replies: tuple[Said, ...] = ()

    def __str__(self) -> str:
        return " ".join(["the Task Publisher:", self.name, *map(str, self.replies)])


class Told(NamedTuple):
    """What was said to workers."""

    tokens: frozenset[str]
    #: Whether they are the whole list.
    is_complete: bool


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
    subscription: Callable[[Subscription], Subscription] = lambda subscription: subscription
    #: In force while a step runs.
    patched: Callable[[Dispatch], AbstractContextManager[None]] = lambda _: nullcontext()


class Publisher:
    """Runs steps, and remembers what came of them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[tuple[Rows, Memory, Step], list[Outcome]] = {}
        #: How many times real code was run.
        self.runs = 0

    def outcomes(self, rows: Rows, memory: Memory, step: Step) -> list[Outcome]:
        """Return what may come of a step: first when it goes through, then when it dies before its 2nd, 3rd … call."""
        key = (rows, memory, step)
        if key not in self._known:
            self._known[key] = list(self._all(rows, memory, step))
        return self._known[key]

    def _all(self, rows: Rows, memory: Memory, step: Step) -> Iterator[Outcome]:
        fate = Fate()
        yield self._run(rows, memory, step, fate)
        # Before the first call nothing has happened: a plain crash.
        for place in range(2, len(fate.calls) + 1):
            yield self._run(rows, memory, step, Fate(dies_before=place))

    def _run(self, rows: Rows, memory: Memory, step: Step, fate: Fate) -> Outcome:
        self.runs += 1
        with transaction.atomic():
            load(rows)
        bench = _Bench(rows, memory, step, fate, self._parts)
        died = ""
        with self._parts.patched(bench.dispatch), mortal_database(fate):
            try:
                bench.perform(step)
            except Died as death:
                died = str(death)
        return bench.outcome(died)


@dataclass
class _Bench:
    """Everything that one step needs, with its hands on the broker and the database."""

    rows: Rows
    memory: Memory
    step: Step
    fate: Fate
    parts: Parts
    published: list[str] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = MortalBroker(self.fate, watch=self._watch)
        self.broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        for said in self.step.replies:
            self.broker.server.route(Message(routing_key=REPLIES, body=_reply(said).to_bytes()))
        self.dispatch = Dispatch(self.broker)
        self.dispatch.post(_intents(self.memory.waiting))
        self.dispatch._confirmed.extend(self.memory.confirmed)
        self.withdrawing = self.parts.withdrawing(self.broker)
        self.withdrawing._told.update(self.memory.told)
        self.relay = self.parts.relay(
            self.broker, Heard(), leads=lambda _: frozenset(), is_followed=False, send=self.dispatch.post
        )

    def perform(self, step: Step) -> None:
        steps: dict[str, Callable[[], object]] = {
            "start": self.relay.start,
            "replies": self._hear_replies,
            "send": self.dispatch.send,
            "confirm": self.dispatch.confirm,
            "resend": self.relay.resend,
            "tell": self.withdrawing.tell_new,
            "welcome": lambda: self.withdrawing.tell_all_to({_WORKER}),
            "cancel": self._cancel,
        }
        steps[step.name]()

    def _hear_replies(self) -> None:
        subscription = self.broker.subscribe(REPLIES, prefetch=hearing.REPLIES_AT_ONCE)
        hearing.hear_replies(self.parts.subscription(subscription), self.relay)

    def _cancel(self) -> None:
        error = TaskError(code="cancelled", message="cancelled")
        self.relay.fail(self.rows.run()["number"], error, task_number=self._current())

    def _current(self) -> int | None:
        unfinished = [task["number"] for task in self.rows.each_task() if task["status"] != TaskStatus.SUCCEEDED]
        return unfinished[0] if unfinished else None

    def outcome(self, died: str) -> Outcome:
        self.broker.close()
        rows, names = read()
        kept = tuple(_said(stored.message.body) for stored in self.broker.server.queues[REPLIES].ready)
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
            is_deaf=self.memory.is_deaf,
        )

    def _watch(self, message: Message) -> None:
        if message.type == "task":
            envelope = TaskEnvelope.parse(message.body)
            # What others could see at this moment.
            committed = self.rows if connection.in_atomic_block else read()[0]
            self.published.append(envelope.token)
            self.broken += checks.publishing_faults(committed, envelope)
        elif message.exchange == CONTROL_EXCHANGE:
            assert message.routing_key in {ALL_WORKERS_KEY, f"worker.{_WORKER}"}
            withdrawals = Withdrawals.parse(message.body)
            self.told.append(Told(frozenset(withdrawals.tokens), withdrawals.is_complete))


def _intents(tokens: Sequence[str]) -> list[Intent]:
    found = {row["token"]: row for row in sql.rows(f"{ATTEMPTS} WHERE a.token IN {sql.places(tokens)}", tokens)}
    return [Intent.of_row(found[token]) for token in tokens]


def _reply(said: Said) -> Reply:
    common: dict[str, Any] = {"token": said.token, "worker": _WORKER, "at": datetime.now(UTC)}
    if said.kind == "started":
        return Started(**common)
    if said.kind == "withdrawn":
        return Withdrawn(**common)
    if said.kind == "succeeded":
        return Finished(**common, elapsed_s=0.0, result=Inline(said.token))
    assert said.kind == "failed", said
    return Finished(**common, elapsed_s=0.0, error=TaskError(code="broken", message="broken"))


def _said(body: bytes) -> Said:
    reply = parse_reply(body)
    kind = type(reply).__name__.lower()
    if isinstance(reply, Finished):
        kind = "succeeded" if reply.error is None else "failed"
    return Said(kind, reply.token)
