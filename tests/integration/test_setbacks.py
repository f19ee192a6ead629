"""Attempts that don't succeed, over real databases and the shipped fake broker: what follows them, and what doesn't."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now

from shepherd.pipelines import leases, overdue, services
from shepherd.pipelines.models import Attempt, StatusChange, Task
from shepherd.pipelines.withdrawn import queued_withdrawn
from shepherd.wire.envelope import TaskError, Withdrawn
from shepherd.wire.value import Inline
from tests.support.engine import Engine, finished, manifest, statuses

pytestmark = pytest.mark.usefixtures("database")

ERROR = TaskError(code="connection_error", message="nobody answered", traceback="Traceback …")


def attempts() -> list[tuple[int, str]]:
    return list(Attempt.objects.order_by("number").values_list("attempt_no", "status"))


def withdrawn(engine: Engine, token: str) -> None:
    engine.say(Withdrawn(token=token, worker="w", at=engine.clock()).to_bytes())
    engine.take_replies()


def test_a_failed_attempt_is_followed_by_another_one_after_a_pause_by_chance() -> None:
    engine = Engine(draw=0.5)
    run = engine.accept("scrape", "upload", contexts={"scrape": {"page": 1}}, policy={"retries": 2, "backoff": 60})
    engine.relay.start()

    engine.finish(engine.take("scrape").token, error=ERROR)
    assert statuses(run) == ["running", "pending", "pending"]
    engine.clock.advance(29)
    engine.relay.retry()
    assert len(engine.published()) == 1
    engine.clock.advance(2)
    engine.relay.retry()
    engine.relay.retry()
    second = engine.take("scrape")
    engine.finish(second.token, Inline("rows"))

    assert (second.attempt, second.context) == (2, {"page": 1})
    assert statuses(run) == ["running", "succeeded", "published"]
    assert Attempt.objects.get(attempt_no=1, task__name="scrape").error["message"] == "nobody answered"
    task = Task.objects.get(run=run, name="scrape")
    assert (task.error, task.failures, task.retry_at) == (None, 1, None)
    reasons = [change.reason for change in StatusChange.objects.filter(to_status="pending")]
    assert reasons == ["attempt 1 failed: nobody answered; the next one is due at 2026-01-31 12:00:30 UTC"]


def test_one_look_ends_and_opens_more_than_one_transaction_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leases, overdue):
        monkeypatch.setattr(module, "_AT_ONCE", 2)
    engine = Engine(draw=0.0)
    late, lost, failed = (
        [engine.accept(name, policy=policy) for _ in range(5)]
        for name, policy in (
            ("scrape", {"wait_timeout": 60}),
            ("clean", {"retry_on_lost": 0}),
            ("load", {"retries": 1}),
        )
    )
    engine.relay.start()
    for _ in range(5):
        engine.finish(engine.take("load").token, error=ERROR)
        engine.claim(engine.take("clean").token)
    Attempt.objects.filter(status="running").update(lease_until=Now() - timedelta(seconds=1))

    engine.clock.advance(61)
    engine.relay.end_leases()
    engine.relay.end_overdue()
    engine.relay.retry()

    assert {tuple(statuses(run)) for run in (*late, *lost)} == {("failed", "failed")}
    assert {Task.objects.get(run=run).attempt_no for run in failed} == {2}


def test_the_last_failure_that_the_policy_allows_ends_the_run_with_its_error() -> None:
    engine = Engine(draw=0.0)
    run = engine.accept("scrape", policy={"retries": 1})
    engine.relay.start()

    for _ in range(2):
        engine.finish(engine.take("scrape").token, error=ERROR)
        engine.relay.retry()

    assert statuses(run) == ["failed", "failed"]
    assert attempts() == [(1, "failed"), (2, "failed")]
    assert Task.objects.get(run=run).error["code"] == "connection_error"
    assert len(engine.heard.ended) == 1


def test_what_no_further_attempt_changes_is_not_tried_again() -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"retries": 5})
    engine.relay.start()

    engine.finish(engine.take("scrape").token, error=TaskError(code="invalid_context", message="no such column"))

    assert statuses(run) == ["failed", "failed"]


def test_a_led_task_is_tried_again_with_what_its_publisher_sent() -> None:
    engine = Engine(leads=frozenset({"scrape"}), draw=0.0)
    run = engine.accept("scrape", policy={"retries": 1})
    engine.relay.start()
    task = Task.objects.get(run=run)
    engine.relay.publish(task.number, context={"by": "publisher"}, data=Inline("theirs"))

    engine.finish(engine.take("scrape").token, error=ERROR)
    engine.relay.publish(task.number, context={"by": "a flow that was run again"})
    assert len(engine.published()) == 1
    engine.relay.retry()

    again = engine.take("scrape")
    assert (again.context, again.data) == ({"by": "publisher"}, Inline("theirs"))


def test_a_run_timeout_travels_with_the_task() -> None:
    engine = Engine()
    engine.accept("scrape", policy={"run_timeout": 90})
    engine.accept("scrape")

    engine.relay.start()

    assert [envelope.run_timeout_s for envelope in engine.published()] == [90.0, None]


def test_a_claimed_attempt_whose_lease_ends_is_lost_and_replaced_at_once() -> None:
    engine = Engine()
    run = engine.accept("scrape", contexts={"scrape": {"page": 1}})
    engine.relay.start()
    first = engine.take("scrape")
    engine.claim(first.token, worker="scrapers@node-2")
    assert statuses(run) == ["running", "running"]

    engine.relay.end_leases()
    assert attempts() == [(1, "running")]
    engine.lose(first.token)
    engine.lose(first.token)

    assert attempts() == [(1, "lost"), (2, "published")]
    second = engine.take("scrape")
    assert (second.attempt, second.context) == (2, {"page": 1})
    assert "scrapers@node-2" in Attempt.objects.get(attempt_no=1).error["message"]
    assert statuses(run) == ["running", "published"]
    change = StatusChange.objects.filter(run=run).latest("number")
    assert (change.from_status, change.to_status, change.attempt_no) == ("running", "published", 2)
    assert change.reason.startswith("attempt 1 was lost: worker scrapers@node-2 has not been heard of for")


def test_a_claim_is_taken_off_the_broker_and_gets_a_lease_by_the_databases_clock() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()

    engine.claim(engine.take("scrape").token)

    attempt = Attempt.objects.get()
    assert (attempt.status, attempt.is_queued, attempt.worker) == ("running", False, "w")
    # The relay's own clock stands in January.
    assert attempt.lease_until is not None
    assert attempt.lease_until - engine.clock() > timedelta(days=30)


def test_heartbeats_renew_the_lease_of_what_they_name_and_of_nothing_else() -> None:
    engine = Engine()
    for _ in range(2):
        engine.accept("scrape")
    engine.relay.start()
    held, silent = (engine.take("scrape").token for _ in range(2))
    for token in (held, silent):
        engine.claim(token)
    Attempt.objects.update(lease_until=engine.clock())

    engine.beat(held, "a token that nobody has", "nul\0")
    engine.relay.end_leases()

    assert Attempt.objects.get(token=held).status == "running"
    assert Attempt.objects.get(token=silent).status == "lost"


def test_a_heartbeat_gives_no_lease_to_what_was_not_claimed() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()

    engine.beat(engine.take("scrape").token)

    attempt = Attempt.objects.get()
    assert attempt.lease_until is None
    assert attempt.seen_at is not None


def test_a_task_that_is_lost_each_time_fails_after_what_the_policy_allows() -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"retry_on_lost": 1})
    engine.relay.start()

    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)
    engine.give_up(engine.take("scrape").token)

    assert statuses(run) == ["failed", "failed"]
    assert attempts() == [(1, "lost"), (2, "lost")]
    error = Task.objects.get(run=run).error
    assert error["code"] == "lost"
    assert error["message"] == "the task was lost 2 times; the last time: the worker was told twice to end"
    assert Attempt.objects.get(attempt_no=2).error["code"] == "worker_stopped"


@pytest.mark.parametrize("is_started", [False, True])
def test_a_late_success_counts_while_nobody_has_claimed_the_next_attempt(*, is_started: bool) -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)
    second = engine.take("scrape").token
    if is_started:
        engine.start(second)

    engine.finish(first, Inline("late"))
    engine.finish(second, Inline("second"))

    assert statuses(run) == ["running", "succeeded", "published"]
    assert Task.objects.get(run=run, name="scrape").result == {"inline": "late"}
    assert attempts()[:2] == [(1, "succeeded"), (2, "withdrawn")]
    # Of the lost one, which mustn't be begun again, and of the one in its place.
    assert engine.heard.withdrawals == 2


def test_the_replacement_of_a_late_success_is_on_the_list_until_a_lease_after_it_was_met() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()
    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)

    engine.finish(first)
    second = Attempt.objects.get(attempt_no=2)
    assert (second.status, second.is_queued) == ("withdrawn", True)
    engine.relay.end_leases()
    assert queued_withdrawn() == [second.token]
    withdrawn(engine, second.token)
    # Its worker may die before it acks: whoever gets it then must know, too.
    engine.relay.end_leases()
    assert queued_withdrawn() == [second.token]
    assert not engine.relay.has_silent()
    Attempt.objects.filter(number=second.number).update(lease_until=Now() - timedelta(seconds=1))
    assert engine.relay.has_silent()
    engine.relay.end_leases()

    assert queued_withdrawn() == []


def test_a_late_success_comes_too_late_once_the_next_attempt_is_claimed() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)
    second = engine.take("scrape").token
    engine.claim(second, worker="v")

    engine.finish(first, Inline("late"))
    assert statuses(run) == ["running", "running"]
    engine.finish(second, Inline("second"))

    assert Task.objects.get(run=run).result == {"inline": "second"}
    assert attempts() == [(1, "lost"), (2, "succeeded")]


def test_of_a_late_success_and_a_claim_in_one_batch_the_first_counts() -> None:
    for is_claim_first in (True, False):
        engine = Engine()
        run = engine.accept("scrape")
        engine.relay.start()
        first = engine.take("scrape").token
        engine.claim(first)
        engine.lose(first)
        second = engine.take("scrape").token

        success = finished(first, Inline("late")).to_bytes()
        claim = success.replace(b'"finished"', b'"claimed"').replace(first.encode(), second.encode())
        for body in (claim, success) if is_claim_first else (success, claim):
            engine.say(body)
        engine.take_replies()

        assert statuses(run)[1] == ("running" if is_claim_first else "succeeded")


def test_a_late_success_of_before_a_resume_does_not_count(asha: User) -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"retry_on_lost": 0})
    engine.relay.start()
    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)
    assert statuses(run) == ["failed", "failed"]

    services.resume(run.number, contexts={"scrape": {"page": 2}}, by=asha, now=engine.clock())
    engine.finish(first, Inline("of the page before"))
    engine.relay.retry()
    engine.finish(first, Inline("of the page before"))
    assert statuses(run) == ["running", "published"]
    engine.finish(engine.take("scrape").token, Inline("of page 2"))

    assert Task.objects.get(run=run).result == {"inline": "of page 2"}


def test_a_failure_of_a_lost_attempt_changes_nothing() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    first = engine.take("scrape").token
    engine.claim(first)
    engine.lose(first)

    engine.finish(first, error=ERROR)

    assert statuses(run) == ["running", "published"]
    assert attempts() == [(1, "lost"), (2, "published")]


def test_an_answer_for_a_withdrawn_attempt_only_takes_it_off_the_list_a_lease_later() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token
    task = Task.objects.get(run=run)
    engine.relay.fail(run.number, TaskError(code="x", message="given up"), task_number=task.number)
    assert Attempt.objects.get().is_queued

    engine.finish(token, Inline(1))

    assert statuses(run) == ["failed", "failed"]
    assert queued_withdrawn() == [token]
    engine.lose(token)
    assert (Attempt.objects.get().status, queued_withdrawn()) == ("withdrawn", [])


def test_an_attempt_withdrawn_before_the_broker_had_it_leaves_the_list_once_its_workers_wait_in_vain() -> None:
    engine = Engine()
    engine.clock.now = datetime.now(UTC)
    with engine.broker_away():
        run = engine.accept("scrape")
        engine.relay.start()
        task = Task.objects.get(run=run)
        engine.relay.fail(run.number, TaskError(code="x", message="given up"), task_number=task.number)
    (token,) = queued_withdrawn()

    engine.hear(manifest("scrape", "clean"))
    for idle_s, is_long_ago in ((61.0, False), (59.0, True), (61.0, True)):
        assert queued_withdrawn() == [token]
        ended_at = engine.clock() - timedelta(minutes=2 if is_long_ago else 0)
        Attempt.objects.filter(token=token).update(finished_at=ended_at)
        engine.beat(idle_s=idle_s)
        engine.relay.forget_unqueued()

    assert queued_withdrawn() == []


def test_what_a_worker_takes_for_withdrawn_by_mistake_is_lost() -> None:
    engine = Engine()
    engine.accept("scrape")
    engine.relay.start()

    withdrawn(engine, engine.take("scrape").token)

    assert attempts() == [(1, "lost"), (2, "published")]


def test_a_task_that_nobody_begins_within_its_time_fails() -> None:
    engine = Engine()
    waiting, begun, patient = (
        engine.accept(name, policy=policy)
        for name, policy in (("scrape", {"wait_timeout": 60}), ("clean", {"wait_timeout": 60}), ("scrape", {}))
    )
    engine.relay.start()
    engine.start(engine.take("clean").token)

    engine.clock.advance(59)
    engine.relay.end_overdue()
    assert statuses(waiting) == ["running", "published"]
    engine.clock.advance(2)
    engine.relay.end_overdue()

    assert statuses(waiting) == ["failed", "failed"]
    assert [statuses(run)[0] for run in (begun, patient)] == ["running", "running"]
    assert Task.objects.get(run=waiting).error["code"] == "wait_timeout"
    attempt = Attempt.objects.get(task__run=waiting)
    assert (attempt.status, attempt.is_queued) == ("withdrawn", True)
    assert engine.heard.withdrawals == 1


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_task_does_not_wait_while_a_worker_executes_its_lost_attempt(is_resumed: bool) -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"wait_timeout": 60})
    engine.relay.start()
    lost = engine.take("scrape").token
    engine.claim(lost)
    engine.lose(lost)
    engine.clock.advance(61)

    engine.beat(lost)
    heard_at = Attempt.objects.get(token=lost).seen_at
    assert heard_at is not None
    Attempt.objects.filter(token=lost).update(seen_at=engine.clock())
    if is_resumed:
        # Its success would no longer count.
        Task.objects.update(losses=0)
    engine.relay.end_overdue()

    assert statuses(run) == (["failed", "failed"] if is_resumed else ["running", "published"])


def test_a_task_whose_lost_attempt_is_not_heard_of_any_more_has_waited_long_enough() -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"wait_timeout": 60})
    engine.relay.start()
    lost = engine.take("scrape").token
    engine.claim(lost)
    engine.lose(lost)
    Attempt.objects.filter(token=lost).update(seen_at=engine.clock())

    engine.clock.advance(59)
    engine.relay.end_overdue()
    assert statuses(run) == ["running", "published"]
    engine.clock.advance(2)
    engine.relay.end_overdue()

    assert statuses(run) == ["failed", "failed"]


def test_an_attempt_that_its_worker_does_not_end_in_time_is_ended_a_lease_later_and_may_be_retried() -> None:
    engine = Engine(draw=0.0)
    run = engine.accept("scrape", policy={"run_timeout": 100, "retries": 1})
    engine.relay.start()
    engine.claim(engine.take("scrape").token)

    engine.clock.advance(159)
    engine.relay.end_overdue()
    assert attempts() == [(1, "running")]
    engine.clock.advance(2)
    engine.relay.end_overdue()
    engine.relay.retry()

    assert attempts() == [(1, "withdrawn"), (2, "published")]
    assert Attempt.objects.get(attempt_no=1).error["code"] == "run_timeout"
    assert statuses(run) == ["running", "published"]


def test_a_withdrawn_attempt_of_a_worker_that_is_gone_leaves_the_list() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token
    engine.claim(token)
    task = Task.objects.get(run=run)
    engine.relay.fail(run.number, TaskError(code="x", message="given up"), task_number=task.number)
    assert Attempt.objects.get().is_queued

    engine.lose(token)

    assert Attempt.objects.get().is_queued is False


def test_duplicates_and_replies_out_of_order_are_recorded_once() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    token = engine.take("scrape").token

    success = finished(token, Inline(1)).to_bytes()
    for _ in range(3):
        engine.say(success)
    engine.take_replies()
    engine.claim(token)
    engine.start(token)
    engine.finish(token, error=ERROR)

    assert statuses(run) == ["running", "succeeded", "published"]
    assert [envelope.name for envelope in engine.published()] == ["scrape", "upload"]


def test_an_answer_that_overtakes_the_word_of_its_confirm_is_recorded() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    Attempt.objects.update(confirmed_at=None)

    engine.finish(engine.take("scrape").token)

    assert statuses(run) == ["succeeded", "succeeded"]
    assert engine.relay.resend() == 0


def test_two_task_publishers_that_look_at_once_open_each_next_attempt_once() -> None:
    engine = Engine(draw=0.0)
    runs = [engine.accept("scrape", policy={"retries": 1, "backoff": 0}) for _ in range(10)]
    engine.relay.start()
    tokens = [engine.take("scrape").token for _ in runs]
    for token in tokens[:5]:
        engine.claim(token)
    Attempt.objects.filter(token__in=tokens[:5]).update(lease_until=Now() - timedelta(seconds=1))
    for token in tokens[5:]:
        engine.finish(token, error=ERROR)

    def look() -> None:
        engine.relay.end_leases()
        engine.relay.retry()
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # A skipped row is another one's; what is left over is looked for again.
    engine.relay.end_leases()
    engine.relay.retry()

    assert sorted(attempts()) == sorted([(1, "lost")] * 5 + [(1, "failed")] * 5 + [(2, "published")] * 10)
    assert len(engine.published()) == 20


def test_a_run_that_fails_as_a_whole_takes_back_what_a_worker_has_of_it() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    token = engine.take("scrape").token
    engine.claim(token)

    engine.relay.fail(run.number, TaskError(code="flow_broken", message="it can't be imported"))

    assert statuses(run) == ["failed", "failed", "pending"]
    assert queued_withdrawn() == [token]
    assert engine.heard.withdrawals == 1
