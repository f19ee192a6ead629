"""What the engine makes of a handle: what it publishes, tells and leaves alone, on both databases."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from shepherd.pipelines import services
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline
from tests.support.engine import Engine, statuses

ERROR = TaskError(code="unknown_column", message="no column 'a'")


@pytest.fixture
def engine(asha: User) -> Engine:
    return Engine()


def stopped(engine: Engine, **contexts: Any) -> Run:
    """Return a run whose second task failed."""
    run = engine.accept("scrape", "clean", "upload", contexts=contexts)
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline("rows"))
    engine.finish(engine.take("clean").token, error=ERROR)
    assert statuses(run) == ["failed", "succeeded", "failed", "pending"]
    return run


def resume(engine: Engine, run: Run, by: User, **contexts: Any) -> None:
    services.resume(run.number, contexts=contexts, by=by, now=engine.clock())
    engine.relay.retry()


def test_a_resumed_task_is_published_at_once_with_its_input_and_what_succeeded_is_not(
    engine: Engine, asha: User
) -> None:
    run = stopped(engine, clean={"column": "a"})

    resume(engine, run, asha, clean={"column": "b"}, upload={"key": 1})

    again = engine.take("clean")
    assert (again.attempt, again.context, again.data) == (2, {"column": "b"}, Inline("rows"))
    engine.finish(again.token, Inline("clean rows"))
    assert engine.take("upload").context == {"key": 1}
    assert [task.name for task in engine.published()] == ["scrape", "clean", "clean", "upload"]
    assert list(Attempt.objects.filter(task__name="clean").order_by("number").values_list("status", "context")) == [
        ("failed", {"column": "a"}),
        ("succeeded", {"column": "b"}),
    ]


def test_a_run_can_be_resumed_again_and_again(engine: Engine, asha: User) -> None:
    run = stopped(engine)

    for attempt in range(2, 5):
        resume(engine, run, asha)
        engine.finish(engine.take("clean").token, error=ERROR)
        assert Attempt.objects.filter(task__run=run, task__name="clean").count() == attempt

    assert statuses(run) == ["failed", "succeeded", "failed", "pending"]


def test_a_resume_gives_the_policy_a_new_start(engine: Engine, asha: User) -> None:
    run = stopped(engine)
    Task.objects.filter(run=run).update(policy={"retries": 1, "backoff": 0})

    resume(engine, run, asha)
    engine.finish(engine.take("clean").token, error=ERROR)
    engine.relay.retry()
    engine.finish(engine.take("clean").token, error=ERROR)

    assert Attempt.objects.filter(task__run=run, task__name="clean").count() == 3
    assert statuses(run)[0] == "failed"


def test_what_was_cancelled_while_it_waited_goes_on_with_a_new_attempt(engine: Engine, asha: User) -> None:
    run = engine.accept("scrape")
    engine.relay.start()
    first = engine.take("scrape").token

    services.cancel(run.number, by=asha, now=engine.clock())
    resume(engine, run, asha)
    second = engine.take("scrape")
    engine.finish(first, Inline("of the cancelled attempt"))
    engine.finish(second.token, Inline("of the next"))

    assert second.attempt == 2
    assert statuses(run) == ["succeeded", "succeeded"]
    assert Task.objects.get(run=run).result == {"inline": "of the next"}


def test_a_retry_that_is_due_is_not_published_once_its_run_is_cancelled(engine: Engine, asha: User) -> None:
    run = engine.accept("scrape")
    Task.objects.filter(run=run).update(policy={"retries": 3})
    engine.relay.start()
    engine.finish(engine.take("scrape").token, error=ERROR)
    assert Task.objects.get(run=run).retry_at is not None

    services.cancel(run.number, by=asha, now=engine.clock())
    engine.clock.advance(3600)
    engine.relay.retry()

    assert statuses(run) == ["cancelled", "cancelled"]
    assert len(engine.published()) == 1


def test_a_retry_of_what_a_publisher_led_is_sent_as_the_publisher_sent_it(asha: User) -> None:
    engine = Engine(leads=frozenset({"scrape"}))
    run = engine.accept("scrape")
    Task.objects.filter(run=run).update(policy={"retries": 1, "backoff": 0})
    engine.relay.start()
    task = Task.objects.get(run=run)
    engine.relay.publish(task.number, context={"made": "by hand"}, data=Inline(1))
    engine.finish(engine.take("scrape").token, error=TaskError(code="x", message="x"))
    services.cancel(run.number, by=asha, now=engine.clock())
    resume(engine, run, asha, scrape={"corrected": True})
    assert len(engine.published()) == 1

    engine.relay.publish(task.number, context={"corrected": True, "made": "again"}, data=Inline(2))
    engine.finish(engine.take("scrape").token, error=TaskError(code="x", message="x"))
    engine.relay.retry()

    retried = engine.take("scrape")
    assert (retried.attempt, retried.context, retried.data) == (3, {"corrected": True, "made": "again"}, Inline(2))
