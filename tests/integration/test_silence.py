"""What is published again because of silence, and what workers are told of that they do in vain."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from shepherd.broker.port import Message, Presence, QueueSpec
from shepherd.broker.topology import (
    ALL_WORKERS_KEY,
    CONTROL_EXCHANGE,
    REPLIES,
    task_queue,
    task_queue_spec,
    worker_key,
)
from shepherd.pipelines import sql, unconfirmed
from shepherd.pipelines.models import Attempt, Task
from shepherd.pipelines.withdrawn import queued_withdrawn
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.ears import Ears
from shepherd.publisher.relay import Relay
from shepherd.publisher.watch import Watch
from shepherd.wire.control import Withdrawals
from shepherd.wire.envelope import TaskError
from tests.support.engine import Engine, finished, manifest, statuses

pytestmark = pytest.mark.usefixtures("database")


def published_long_ago(engine: Engine, *names: str) -> list[str]:
    """Publish a task of each name, and let an hour pass; the clock goes on from now, as heartbeats are heard now."""
    for name in names:
        engine.accept(name)
    engine.relay.start()
    engine.dispatch.take_lost()
    engine.clock.now = datetime.now(UTC)
    Attempt.objects.update(confirmed_at=engine.clock() - timedelta(hours=1))
    return list(Attempt.objects.order_by("number").values_list("token", flat=True))


def watched(engine: Engine) -> Callable[[int], None]:
    """Return what lets a Task Publisher that has just started look once a second, so many times."""
    seconds = [0.0]
    ears = Ears(REPLIES, "beats", lease=timedelta(seconds=60), monotonic=lambda: seconds[0])
    began_at = sql.database_time()
    watch = Watch(engine.broker, engine.relay, ears, database_time=lambda: began_at + timedelta(seconds=seconds[0]))

    def pass_by(count: int) -> None:
        for _ in range(count):
            for queue in (REPLIES, "beats"):
                ears.turned(queue, began_at=seconds[0], generation=1)
            seconds[0] += 1
            watch.look()

    return pass_by


def tokens(engine: Engine) -> list[str]:
    return [envelope.token for envelope in engine.published()]


def test_what_no_queue_can_have_any_more_is_published_again_once_as_the_same_attempt() -> None:
    engine = Engine()
    (token,) = published_long_ago(engine, "scrape")
    engine.hear(manifest("scrape"))
    engine.beat(idle_s=61)

    assert engine.relay.has_silent()
    assert engine.relay.resend_missed() == 1
    assert engine.relay.resend_missed() == 0
    assert not engine.relay.has_silent()

    assert tokens(engine) == [token, token]


def test_what_is_in_somebodys_hands_or_may_be_in_a_queue_is_left_alone() -> None:
    engine = Engine()
    held, claimed, _foreign = published_long_ago(engine, "scrape", "scrape", "clean")
    engine.take("scrape")
    engine.take("scrape")
    engine.claim(claimed)
    engine.hear(manifest("scrape"))

    engine.beat(held, idle_s=61)
    assert engine.relay.resend_missed() == 0
    engine.beat(idle_s=59)
    Attempt.objects.update(seen_at=None)

    assert engine.relay.resend_missed() == 0


def test_a_worker_that_is_gone_or_drained_says_nothing_by_its_silence() -> None:
    engine = Engine()
    published_long_ago(engine, "scrape")
    engine.hear(manifest("scrape"))
    engine.beat(idle_s=61)

    engine.clock.advance(31)

    assert engine.relay.resend_missed() == 0


def test_everything_of_a_queue_that_is_found_missing_is_published_again() -> None:
    engine = Engine()
    first, second, other = published_long_ago(engine, "scrape", "scrape", "clean")
    in_hand = published_long_ago(engine, "scrape")[-1]
    engine.beat(in_hand)
    engine.broker.server.delete_queue(task_queue("scrape"))

    engine.dispatch.look(unconfirmed.unfinished_names())
    lost = engine.dispatch.take_lost()
    counts = [engine.relay.resend_lost([name], missing_at=at) for name, at in lost.items()]

    assert counts == [2]
    assert tokens(engine) == [first, second, other, in_hand, first, second]
    assert engine.broker.server.depth(task_queue("scrape")) == 2
    assert engine.dispatch.take_lost() == {}


def test_a_queue_that_publishing_finds_missing_is_declared_and_filled_again() -> None:
    engine = Engine()
    (token,) = published_long_ago(engine, "scrape")
    engine.broker.server.delete_queue(task_queue("scrape"))

    engine.accept("scrape")
    engine.relay.start()
    lost = engine.dispatch.take_lost()
    for name, at in lost.items():
        engine.relay.resend_lost([name], missing_at=at)

    assert list(lost) == ["scrape"]
    assert engine.take("scrape").token == token


def test_a_queue_that_was_pruned_is_there_again_when_a_worker_of_its_name_comes_back() -> None:
    engine = Engine()
    engine.dispatch = Dispatch(engine.broker, look_every_s=0)
    engine.hear(manifest("scrape"))
    engine.broker.delete([task_queue("scrape")])

    engine.hear(manifest("scrape"))

    (found,) = engine.broker.compare(queues=[task_queue_spec("scrape")])
    assert found.presence == Presence.SAME
    assert list(engine.dispatch.take_lost()) == ["scrape"]


def test_a_workers_word_makes_nobody_look_for_its_queues_more_than_once_a_minute() -> None:
    engine = Engine()
    engine.hear(manifest("scrape"))
    engine.broker.delete([task_queue("scrape")])

    engine.hear(manifest("scrape"))

    (found,) = engine.broker.compare(queues=[task_queue_spec("scrape")])
    assert found.presence == Presence.MISSING


def test_a_new_queue_is_nobodys_loss() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()

    lost = engine.dispatch.take_lost()

    assert [engine.relay.resend_lost([name], missing_at=at) for name, at in lost.items()] == [0]


def test_a_worker_is_told_of_what_it_does_in_vain() -> None:
    engine = Engine()
    runs = [engine.accept("scrape") for _ in range(4)]
    engine.relay.start()
    lost, finished, withdrawn, current = (engine.take("scrape").token for _ in runs)
    heard = engine.broker.listen(CONTROL_EXCHANGE, binding_keys=[worker_key("w")])
    for token in (lost, finished, withdrawn, current):
        engine.claim(token)
    engine.lose(lost)
    engine.finish(finished)
    _cancel(engine, withdrawn)

    engine.beat(lost, finished, withdrawn, current)
    # The success of a lost attempt may still count.
    assert _told(heard.take(at_most=9, wait_s=0.1)) == [{finished, withdrawn}]
    engine.claim(engine.take("scrape").token, worker="v")
    engine.beat(lost, current)

    assert _told(heard.take(at_most=9, wait_s=0.1)) == [{lost}]


def test_a_claimed_attempt_that_is_withdrawn_is_broadcast_too() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token
    heard = engine.broker.listen(CONTROL_EXCHANGE, binding_keys=[ALL_WORKERS_KEY])
    engine.claim(token)

    _cancel(engine, token)
    engine.withdrawing.tell_new()

    assert _told(heard.take(at_most=9, wait_s=0.1)) == [{token}]


def test_no_lease_ends_while_a_backlog_waits_or_before_a_whole_lease_was_heard() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token
    engine.claim(token)
    Attempt.objects.update(lease_until=datetime.now(UTC) - timedelta(hours=1))
    pass_by = watched(engine)

    pass_by(60)
    engine.broker.publish([Message(routing_key=REPLIES, body=b"a reply that waits")])
    pass_by(30)
    assert statuses(run) == ["running", "running"]
    engine.take_replies()
    pass_by(3)

    assert statuses(run) == ["running", "published"]


@pytest.mark.parametrize("limit", ["wait_timeout", "run_timeout"])
def test_no_time_is_over_before_everything_was_heard_that_came_while_nobody_listened(limit: str) -> None:
    engine = Engine()
    done, silent = (engine.accept("scrape", policy={limit: 60}) for _ in range(2))
    engine.relay.start()
    first, second = engine.take("scrape").token, engine.take("scrape").token
    if limit == "run_timeout":
        engine.start(first)
        engine.start(second)
    engine.say(finished(first, at=engine.clock()).to_bytes())
    engine.clock.advance(3600)
    pass_by = watched(engine)

    pass_by(70)
    assert statuses(done)[0] == statuses(silent)[0] == "running"
    engine.take_replies()
    pass_by(3)

    assert statuses(done) == ["succeeded", "succeeded"]
    assert statuses(silent) == ["failed", "failed"]
    assert Task.objects.get(run=silent).error["code"] == limit


def test_what_a_worker_had_claimed_that_is_gone_is_taken_off_the_list_of_withdrawn_attempts() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token
    engine.claim(token)
    _cancel(engine, token)
    pass_by = watched(engine)

    pass_by(70)
    assert queued_withdrawn() == [token]
    Attempt.objects.update(lease_until=datetime.now(UTC) - timedelta(seconds=1))
    pass_by(3)

    assert queued_withdrawn() == []


def test_a_clock_that_is_put_back_keeps_nothing_waiting() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload", policy={"retries": 1})
    engine.relay.start()
    engine.finish(engine.take("scrape").token, error=TaskError(code="x", message="x"))
    claimed = engine.accept("clean")
    engine.relay.start()
    engine.claim(engine.take("clean").token)
    Attempt.objects.filter(status="running").update(lease_until=datetime.now(UTC) + timedelta(days=1))

    engine.clock.advance(-86_400)
    engine.relay.retry()
    engine.relay.end_leases()

    assert statuses(run) == ["running", "published", "pending"]
    assert statuses(claimed) == ["running", "running"]
    lease_until = Attempt.objects.get(status="running").lease_until
    assert lease_until is not None
    assert lease_until - datetime.now(UTC) < timedelta(minutes=2)


def test_what_is_found_again_and_again_while_the_broker_is_away_is_published_once() -> None:
    engine = Engine()
    engine.relay.start()
    engine.accept("scrape")
    posting = Relay(engine.broker, engine.heard, leads=lambda _: (), send=engine.dispatch.post, clock=engine.clock)
    posting.start()
    engine.clock.advance(10)
    for _ in range(5):
        assert posting.resend() == 1

    engine.dispatch.send()
    posting.resend()
    engine.dispatch.confirm()

    assert posting.resend() == 0
    assert len(engine.published()) == 1


def test_what_the_broker_did_not_take_is_published_by_a_later_sweep() -> None:
    engine = Engine()
    engine.accept("scrape")
    posting = Relay(engine.broker, engine.heard, leads=lambda _: (), send=engine.dispatch.post, clock=engine.clock)
    with engine.broker_away():
        posting.start()
        engine.dispatch.send()
    engine.clock.advance(10)

    posting.resend()
    engine.dispatch.send()

    assert len(engine.published()) == 1


def test_a_queue_that_cannot_be_declared_keeps_no_other_task_waiting() -> None:
    engine = Engine()
    engine.broker.declare(queues=[QueueSpec(name=task_queue("scrape"), arguments={"x-queue-type": "classic"})])
    for name in ["scrape"] * 250 + ["clean"]:
        engine.accept(name)

    engine.relay.start()
    assert tokens(engine) == [engine.take("clean").token]
    Attempt.objects.filter(task__name="clean").update(confirmed_at=None)
    engine.clock.advance(10)
    for _ in range(2):
        engine.relay.resend()

    assert len(engine.published()) == 2


def _cancel(engine: Engine, token: str) -> None:
    attempt = Attempt.objects.select_related("task").get(token=token)
    error = TaskError(code="x", message="given up")
    engine.relay.fail(attempt.task.run_id, error, task_number=attempt.task.number)


def _told(deliveries: Sequence[object]) -> list[set[str]]:
    return [set(Withdrawals.parse(delivery.body).tokens) for delivery in deliveries]  # type: ignore[attr-defined]
