"""The interleavings of a slot's two threads, step by step: reactor and child do what the test says, when it says so."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.port import Delivery, Intake, Message, QueueSpec
from shepherd.errors import BrokerUnavailableError, TransientError
from shepherd.worker.attempt import Cause, Hands
from shepherd.worker.outbox import Outbox
from shepherd.worker.pipe import Frame, FrameKind
from shepherd.worker.process import Event, OutputLine
from shepherd.worker.sprint import Sprint

if TYPE_CHECKING:
    from shepherd.worker.surroundings import Surroundings

_REPLY = b'{"log_lines":0}'
_RESULT = Frame(FrameKind.RESULT, _REPLY)


class Reactor:
    """Calls nobody back by itself."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.sent: list[tuple[Message, Callable[[], None], Callable[[TransientError | None], None]]] = []

    def watch(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        self.watched[descriptor] = on_ready

    def unwatch(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)

    def send(
        self, message: Message, *, on_sent: Callable[[], None], on_settled: Callable[[TransientError | None], None]
    ) -> None:
        self.sent.append((message, on_sent, on_settled))


class Child:
    descriptor = 7

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.says: list[Event] = []
        self.has_written: list[Event] = []
        self.has_ended = False
        self.fails: Exception | None = None

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        assert kind is FrameKind.TASK
        self.got.append(payload)
        return not self.has_ended

    def heard(self) -> list[Event]:
        if self.fails is not None:
            raise self.fails
        said, self.says = self.says, []
        return said

    def drained(self) -> list[Event]:
        return self.has_written

    def kill(self) -> None:
        self.has_ended = True


class Bench:
    """A sprint with all that it needs, and one task after another."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.broker.declare(queues=[QueueSpec(name="q")])
        self.intake: Intake = self.broker.intake(["q"])
        self.reactor, self.child, self.hands = Reactor(), Child(), Hands()
        self.stopping = threading.Event()
        self.outbox = Outbox(self.broker, stopping=self.stopping)
        around = SimpleNamespace(
            hands=self.hands,
            outbox=self.outbox,
            stopping=self.stopping,
            withdrawn=set(),
            sight=SimpleNamespace(trouble="", is_looking=False),
        )
        self.withdrawn: set[str] = around.withdrawn
        self.sprint = Sprint(cast("Surroundings", around), self.reactor, self.intake, must_rest=lambda: False)
        self.arm()

    def arm(self) -> None:
        self.sprint.arm(cast("Any", self.child))

    def delivery(self, token: str, body: bytes = b"{}") -> Delivery:
        self.broker.publish([Message(routing_key="q", body=body, message_id=token)])
        delivery = self.intake.take(wait_s=5)
        assert delivery is not None
        return delivery

    def say(self, *events: Event) -> None:
        self.child.says += events
        self.reactor.watched[self.child.descriptor]()

    def waiting(self) -> int:
        (compared,) = self.broker.compare(queues=[QueueSpec(name="q")])
        return compared.messages


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.broker.close()


def test_a_short_task_is_answered_without_the_slots_thread_and_held_until_its_confirm(bench: Bench) -> None:
    delivery = bench.delivery("a")

    assert bench.sprint.takes(delivery)
    bench.say(_RESULT)
    ((reply, on_sent, on_settled),) = bench.reactor.sent
    on_sent()
    before, is_busy = bench.hands.tokens, bench.sprint.is_busy
    on_settled(None)

    assert bench.child.got == [delivery.body]
    assert (reply.body, reply.type, before, is_busy) == (_REPLY, "finished", ("a",), True)
    assert (bench.hands.tokens, bench.sprint.is_busy) == ((), False)
    bench.intake.release(delivery)
    assert bench.waiting() == 0, "it was acked"


@pytest.mark.parametrize(
    "events",
    [[Frame(FrameKind.LINE, b"[0, 1]")], [OutputLine("INFO", "x"), _RESULT], [Frame(FrameKind.MALFORMED, b"")]],
    ids=["line", "output", "malformed"],
)
def test_what_is_more_than_a_result_is_left_with_all_that_was_heard(bench: Bench, events: list[Event]) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.say(*events)
    begun = bench.sprint.left()

    assert begun is not None
    assert (begun.attempt.token, begun.heard, bench.reactor.sent) == ("a", events, [])
    assert bench.reactor.watched == {}, "nobody else listens to the child"
    assert bench.hands.tokens == ("a",)


def test_what_was_written_around_pythons_streams_comes_before_the_result(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.child.has_written = [OutputLine("INFO", "late")]
    bench.say(_RESULT)

    begun = bench.sprint.left()
    assert begun is not None
    assert begun.heard == [OutputLine("INFO", "late"), _RESULT]


def test_arming_again_does_not_take_back_what_was_left(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.say(Frame(FrameKind.LINE, b"[0, 1]"))
    bench.arm()

    assert bench.reactor.watched == {}
    assert bench.sprint.left() is not None


def test_what_is_not_over_after_a_while_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.sprint.takes(bench.delivery("a"))
    soon = bench.sprint.left()
    later = time.monotonic() + 0.9
    monkeypatch.setattr("shepherd.worker.sprint.time", SimpleNamespace(monotonic=lambda: later))

    assert soon is None
    assert bench.sprint.left() is not None
    assert bench.sprint.left() is None


def test_a_refused_reply_is_to_be_sent_anew_and_nothing_is_taken_behind_it(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.say(_RESULT)
    ((reply, on_sent, on_settled),) = bench.reactor.sent
    on_sent()
    on_settled(BrokerUnavailableError("refused"))
    second = bench.delivery("b")

    assert bench.sprint.is_late
    assert not bench.sprint.takes(second)
    unsaid = bench.sprint.unsaid()
    assert unsaid is not None
    assert (unsaid.attempt.token, unsaid.reply) == ("a", reply)
    assert bench.hands.tokens == ("a",), "it stays in hand until somebody has confirmed it"
    assert bench.sprint.takes(second)


def test_a_late_confirm_of_a_reply_that_is_sent_anew_changes_nothing(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.say(_RESULT)
    unsaid = bench.sprint.unsaid()
    bench.reactor.sent[0][2](None)

    assert unsaid is not None
    assert bench.hands.tokens == ("a",)


def test_a_result_behind_an_unconfirmed_one_waits_for_the_slots_thread(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.say(_RESULT)
    bench.reactor.sent[0][1]()
    bench.sprint.takes(bench.delivery("b"))
    bench.say(_RESULT)
    begun = bench.sprint.left()

    assert begun is not None
    assert begun.attempt.token == "b"  # no secret
    assert len(bench.reactor.sent) == 1


def test_a_claimed_attempt_is_left_since_its_reply_goes_to_the_disk_first(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    attempt = bench.hands.get("a")
    assert attempt is not None
    attempt.is_claimed = True
    bench.say(_RESULT)

    assert bench.sprint.left() is not None
    assert bench.reactor.sent == []


def test_what_is_being_ended_is_left_without_waiting_for_that(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    attempt = bench.hands.get("a")
    assert attempt is not None
    is_killing, may_go_on = threading.Event(), threading.Event()

    def kill() -> None:
        is_killing.set()
        may_go_on.wait(20)

    attempt.begin(kill)
    killer = threading.Thread(target=lambda: attempt.end(Cause.WITHDRAWN))
    killer.start()
    is_killing.wait(20)
    bench.say(_RESULT)
    may_go_on.set()
    killer.join()

    assert bench.sprint.left() is not None
    assert bench.reactor.sent == []


def test_what_could_not_be_heard_is_said_to_the_slots_thread(bench: Bench) -> None:
    bench.sprint.takes(bench.delivery("a"))
    bench.child.fails = ValueError("no such frame")
    bench.say(_RESULT)
    begun = bench.sprint.left()

    assert begun is not None
    assert begun.failure is bench.child.fails


def test_the_end_of_an_idle_child_is_left_to_the_slots_thread(bench: Bench) -> None:
    bench.child.has_ended = True
    bench.say()
    bench.arm()

    assert bench.reactor.watched == {}
    assert not bench.sprint.takes(bench.delivery("a"))
    assert bench.hands.tokens == ()


@pytest.mark.parametrize(
    ("token", "body"),
    [("", b"{}"), ("a", b'{"run_timeout_s": 1}'), ("a", b" " * 100_000)],
    ids=["no token", "limit", "large"],
)
def test_what_is_special_is_not_taken(bench: Bench, token: str, body: bytes) -> None:
    assert not bench.sprint.takes(bench.delivery(token, body))
    assert (bench.child.got, bench.hands.tokens) == ([], ())


def test_nothing_is_taken_that_was_withdrawn_or_once_the_worker_ends(bench: Bench) -> None:
    delivery = bench.delivery("a")
    bench.withdrawn.add("a")
    assert not bench.sprint.takes(delivery)
    bench.withdrawn.clear()
    bench.stopping.set()

    assert not bench.sprint.takes(delivery)
    assert (bench.child.got, bench.hands.tokens) == ([], ())
