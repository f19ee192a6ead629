"""A Task Publisher's relay over the shipped fake broker, and the hand of a worker."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db.models.functions import Now

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.port import Delivery, Message
from shepherd.broker.topology import BEATS, DEAD_QUEUE, EXCHANGES, REPLIES, STANDING_QUEUES, task_queue
from shepherd.domain.pipeline import PipelineSpec, TaskSpec
from shepherd.pipelines.acceptance import accept
from shepherd.pipelines.intents import Intent
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.pipelines.starting import Leads
from shepherd.publisher.dead_letters import take_dead_letters
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.hearing import hear_beats
from shepherd.publisher.relay import Relay
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.wire.beat import Beat
from shepherd.wire.envelope import Claimed, Finished, Started, TaskEnvelope, TaskError
from shepherd.wire.manifest import Manifest, TaskOffer
from shepherd.wire.value import Inline, Value

PROJECT = "generic-transformations"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Heard:
    """A listener that only remembers."""

    ended: list[int] = field(default_factory=list)
    led: list[int] = field(default_factory=list)
    due: dict[int, str] = field(default_factory=dict)
    withdrawals: int = 0

    def task_ended(self, task_number: int) -> None:
        self.ended.append(task_number)

    def run_led(self, run_number: int) -> None:
        self.led.append(run_number)

    def fetch_due(self, run_number: int, data_url: str) -> None:
        self.due[run_number] = data_url

    def attempts_withdrawn(self) -> None:
        self.withdrawals += 1


class Engine:
    """A relay with its broker, and what a test does beside it."""

    def __init__(self, *, leads: frozenset[str] | Leads = frozenset(), draw: float = 0.5) -> None:
        self.broker = MemoryBroker()
        self.broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        self.clock = Clock()
        self.heard = Heard()
        self.dispatch = Dispatch(self.broker)
        self.relay = Relay(
            self.broker,
            self.heard,
            leads=leads if callable(leads) else lambda _: leads,
            send=self._publish,
            draw=lambda: draw,
            clock=self.clock,
        )
        self.replies = self.broker.subscribe(REPLIES, prefetch=100)
        self.withdrawing = Withdrawing(self.broker)
        self._beats = self.broker.subscribe(BEATS, prefetch=100)
        self._dead = self.broker.subscribe(DEAD_QUEUE, prefetch=100)

    def _publish(self, intents: Sequence[Intent]) -> None:
        self.dispatch.publish(intents)
        self.dispatch.confirm()

    def accept(
        self,
        *names: str,
        data_url: str = "",
        contexts: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        project: str = PROJECT,
        sample_rows: int | None = None,
    ) -> Run:
        """Accept a run of these tasks, all with one policy."""
        tasks = tuple(
            TaskSpec(
                index=number - 1,
                order_no=number,
                name=name,
                context=(contexts or {}).get(name, {}),
                policy=policy or {},
            )
            for number, name in enumerate(names, start=1)
        )
        spec = PipelineSpec(pipeline_name="p", data_url=data_url, project=project, tasks=tasks, sample_rows=sample_rows)
        user, _ = User.objects.get_or_create(username="ana")
        return accept(spec, by=user, now=self.clock()).run

    def published(self) -> list[TaskEnvelope]:
        """Every task that was published, in order."""
        return [TaskEnvelope.parse(message.body) for message in self.broker.published if message.type == "task"]

    def take(self, name: str) -> TaskEnvelope:
        """Take the next delivery of a task, as a worker would."""
        intake = self.broker.intake([task_queue(name)])
        delivery = intake.take(wait_s=0.1)
        assert delivery is not None, f"no {name} was published"
        intake.ack(delivery)
        intake.close()
        return TaskEnvelope.parse(delivery.body)

    def finish(self, token: str, result: Value | None = None, *, error: TaskError | None = None) -> None:
        """Answer for an attempt, and let the relay take the answer."""
        self.say(finished(token, result, error=error, at=self.clock()).to_bytes())
        self.take_replies()

    def say_finished(self, token: str, result: Value | None = None) -> None:
        """Answer for an attempt, and leave the answer in the queue."""
        self.say(finished(token, result, at=self.clock()).to_bytes())

    def start(self, token: str) -> None:
        self.say(Started(token=token, worker="w", at=self.clock()).to_bytes())
        self.take_replies()

    def claim(self, token: str, *, worker: str = "w") -> None:
        self.say(Claimed(token=token, worker=worker, at=self.clock()).to_bytes())
        self.take_replies()

    def give_up(self, token: str) -> None:
        """Answer as a worker that has to end at once."""
        error = TaskError(code="worker_stopped", message="the worker was told twice to end")
        reply = Finished(token=token, worker="w", at=self.clock(), elapsed_s=0.5, error=error, is_lost=True)
        self.say(reply.to_bytes())
        self.take_replies()

    def lose(self, token: str) -> None:
        """Let an attempt's lease end, in place of the database's clock, and the relay notice it."""
        Attempt.objects.filter(token=token).update(lease_until=Now() - timedelta(seconds=1))
        self.relay.end_leases()

    def beat(self, *holds: str, worker: str = "w", idle_s: float = 0.0) -> None:
        """Let a worker say what it holds, and the Task Publisher hear it."""
        said = Beat(worker=worker, at=self.clock(), free_slots=1, holds=holds, idle_s=idle_s)
        self.hear(said.to_bytes())

    def hear(self, *bodies: bytes) -> None:
        messages = [Message(routing_key=BEATS, body=body) for body in bodies]
        assert self.broker.publish(messages) == [None] * len(messages)
        hear_beats(self._beats, self.dispatch, self.withdrawing)

    def bury(self) -> None:
        """Let the Task Publisher take what lies in the dead-letter queue."""
        take_dead_letters(self._dead, self.relay)

    def say(self, body: bytes) -> None:
        assert self.broker.publish([Message(routing_key=REPLIES, body=body)]) == [None]

    def take_replies(self) -> None:
        deliveries = self.replies.take(at_most=100, wait_s=0.1)
        self.replies.ack(self.relay.take_replies(deliveries))

    @contextmanager
    def broker_away(self) -> Iterator[None]:
        self.broker.server.go_down()
        yield
        self.broker.server.come_back()

    def dead(self) -> list[dict[str, Any]]:
        """What lies in the dead-letter queue."""
        with _taken(self.broker, DEAD_QUEUE) as deliveries:
            return [json.loads(delivery.body) for delivery in deliveries]


@contextmanager
def _taken(broker: MemoryBroker, queue: str) -> Iterator[list[Delivery]]:
    subscription = broker.subscribe(queue, prefetch=1000)
    yield subscription.take(at_most=1000, wait_s=0.05)
    subscription.close()


def manifest(
    *names: str, worker: str = "w", at: datetime | None = None, free_slots: int = 1, wants_withdrawals: bool = False
) -> bytes:
    """What a worker says of itself that serves these tasks."""
    said = Manifest(
        worker=worker,
        at=at or datetime.now(UTC),
        host="node-2",
        pid=1,
        version="0",
        slots=free_slots,
        free_slots=free_slots,
        state="serving",
        store="",
        tasks=tuple(TaskOffer(name=name, description="", context_schema={}) for name in names),
        wants_withdrawals=wants_withdrawals,
    )
    return said.to_bytes()


def finished(
    token: str, result: Value | None = None, *, error: TaskError | None = None, at: datetime | None = None
) -> Finished:
    own = None if error else (result or Inline(None))
    return Finished(token=token, worker="w", at=at or datetime.now(UTC), elapsed_s=0.5, result=own, error=error)


def statuses(run: Run) -> list[str]:
    """The run's status, then those of its tasks in order."""
    run.refresh_from_db()
    return [run.status, *Task.objects.filter(run=run).order_by("position").values_list("status", flat=True)]
