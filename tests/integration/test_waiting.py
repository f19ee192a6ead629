"""Nothing that was accepted waits without a reason that can be said in one sentence."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import queries, services
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.wire.beat import Beat
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline
from tests.support.engine import PROJECT, Engine
from tests.support.web import NOW, later, manifest, pipeline

NOON = "2026-01-31 12:00:00 UTC"
Make = Callable[..., Run]


@pytest.fixture
def running(asha: User) -> Make:
    """Makes a run as the Task Publisher leaves it: started, its first task in the given status."""

    def make(status: str = "pending", *, task: dict[str, Any] | None = None, data: Any = None, **run: Any) -> Run:
        document = pipeline("sentinel", "upload", data_url=run.pop("data_url", ""))
        made = services.accept(parse_pipeline(document), by=asha, now=NOW).run
        at = run.pop("published_at", NOW)
        Run.objects.filter(pk=made.pk).update(
            **{"status": "running", "started_at": NOW, "data": data or {"inline": None}, **run}
        )
        first = made.tasks.get(position=0)
        if status != "pending":
            task = {"attempt_no": 1, "published_at": at, **(task or {})}
        made.tasks.filter(pk=first.pk).update(status=status, **(task or {}))
        return made

    return make


def attempted(
    run: Run, *, confirmed_at: datetime | None = NOW, published_at: datetime = NOW, **columns: Any
) -> Attempt:
    return Attempt.objects.create(
        task=run.tasks.get(position=0),
        attempt_no=1,
        token=f"t{run.number}",
        context={},
        data={"inline": None},
        published_at=published_at,
        confirmed_at=confirmed_at,
        **columns,
    )


def reason(run: Run, *, now: datetime = NOW) -> str | None:
    alone = queries.one_run(run.number, now=now).reason
    page = queries.list_runs(queries.RunFilter(), before=None, limit=50, now=now)
    assert alone == next(summary.reason for summary in page.runs if summary.run == run)
    return alone


def test_an_accepted_run_waits_for_the_task_publisher(asha: User) -> None:
    run = services.accept(parse_pipeline(pipeline("sentinel")), by=asha, now=NOW).run

    assert reason(run) == "Waiting for the Task Publisher to start it."


def test_a_run_whose_data_is_not_there_yet_waits_for_it(running: Make) -> None:
    run = running(data_url="http://example.org/a.csv")
    Run.objects.filter(pk=run.pk).update(data=None)

    assert reason(run) == "Fetching data_url."


def test_a_task_that_a_publisher_leads_waits_for_prefect(running: Make) -> None:
    run = running(task={"is_led": True}, prefect_state="waiting")

    assert reason(run) == "Waiting for a Prefect slot: a publisher of project 'ids-drr' leads 'sentinel'."


def test_a_publisher_at_work_is_a_reason(running: Make) -> None:
    run = running(task={"is_led": True}, prefect_state="open")

    assert reason(run) == "The publisher of 'sentinel' in project 'ids-drr' is at work."


def test_a_task_of_a_name_that_was_never_announced_says_so(running: Make) -> None:
    run = running("published")
    attempted(run)

    assert reason(run) == "No worker has ever announced 'sentinel'."


def test_a_task_whose_workers_are_all_gone_says_since_when(running: Make) -> None:
    services.announce(manifest("sentinel", worker="a"), now=NOW)
    services.announce(manifest("sentinel", worker="b"), now=later(60))
    run = running("published")
    attempted(run)

    assert reason(run, now=later(7200)) == (
        "Every worker that serves 'sentinel' has been offline since 2026-01-31 12:01:00 UTC."
    )


def test_a_task_behind_others_says_how_many(running: Make) -> None:
    services.announce(manifest("sentinel", free_slots=0), now=NOW)
    runs = [running("published", published_at=later(n)) for n in range(3)]
    for run in runs:
        attempted(run)

    assert reason(runs[0]) == "The only slot for 'sentinel' is busy."
    assert reason(runs[2]) == "The only slot for 'sentinel' is busy, and 2 came before it."


def test_only_what_was_published_earlier_under_the_same_name_is_ahead(running: Make) -> None:
    services.announce(manifest("sentinel", "upload", free_slots=0), now=NOW)
    names = ["sentinel", "upload", "upload", "sentinel", "upload"]
    # The second and the third at the same moment: neither came before the other.
    at = [later(n) for n in (0, 1, 1, 2, 3)]
    runs = [running("published", task={"name": name}, published_at=at_n) for name, at_n in zip(names, at, strict=True)]
    for run in runs:
        attempted(run)

    assert [reason(run) for run in runs] == [
        "The only slot for 'sentinel' is busy.",
        "The only slot for 'upload' is busy.",
        "The only slot for 'upload' is busy.",
        "The only slot for 'sentinel' is busy, and 1 came before it.",
        "The only slot for 'upload' is busy, and 2 came before it.",
    ]


def test_a_task_whose_workers_all_have_another_store_says_so(running: Make) -> None:
    services.announce(manifest("sentinel", worker="a", store="file:///srv/elsewhere"), now=NOW)
    run = running("published")
    attempted(run)

    assert reason(run) == (
        "Every worker that serves 'sentinel' keeps data in another store than the Task Publisher (SHEPHERD_STORE): "
        "it takes only what travels without one."
    )
    services.announce(manifest("sentinel", worker="b", store=f"{settings.SHEPHERD.store_url}/"), now=NOW)
    assert reason(run) == "RabbitMQ has 'sentinel'; a worker with a free slot takes it next."


def test_a_task_that_the_broker_has_not_confirmed_says_so_after_five_seconds(running: Make) -> None:
    services.announce(manifest("sentinel"), now=NOW)
    run = running("published")
    attempted(run, confirmed_at=None)

    assert reason(run, now=later(4)) == "RabbitMQ has 'sentinel'; a worker with a free slot takes it next."
    assert reason(run, now=later(6)) == (
        "RabbitMQ is unreachable or takes no messages: "
        "'sentinel' waits to be handed over since 2026-01-31 12:00:00 UTC."
    )


def test_a_running_task_waits_for_nothing(running: Make) -> None:
    assert reason(running("running")) is None


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_run_that_has_ended_waits_for_nothing(running: Make, status: str) -> None:
    run = running()
    Run.objects.filter(pk=run.pk).update(status=status)

    assert reason(run) is None


def test_between_two_tasks_the_task_publisher_is_the_reason(running: Make) -> None:
    assert reason(running("succeeded")) == "The Task Publisher is about to publish 'upload'."


def test_a_task_whose_workers_are_all_being_drained_says_so(running: Make) -> None:
    services.announce(manifest("sentinel", state="draining"), now=NOW)
    run = running("published")
    attempted(run)

    assert (
        reason(run)
        == "Every worker that serves 'sentinel' is being drained: it ends what it has and takes nothing new."
    )


def test_a_worker_that_takes_over_from_a_drained_one_is_the_next(running: Make) -> None:
    services.announce(manifest("sentinel", state="draining", worker="old"), now=NOW)
    services.announce(manifest("sentinel", worker="new"), now=NOW)
    run = running("published")
    attempted(run)

    assert reason(run) == "RabbitMQ has 'sentinel'; a worker with a free slot takes it next."


def test_a_retry_says_when_it_is_due_and_why(running: Make) -> None:
    run = running("pending", task={"attempt_no": 1, "failures": 1, "retry_at": later(30)})
    attempted(run, status="failed", error={"code": "unavailable", "message": "the archive\nis down."})

    assert reason(run) == (
        "Attempt 2 of 'sentinel' is due at 2026-01-31 12:00:30 UTC: "
        "the last one failed with unavailable, the archive is down."
    )
    assert reason(run, now=later(31)) == "The Task Publisher is about to publish 'sentinel'."


def test_a_retry_after_a_loss_names_the_worker(running: Make) -> None:
    run = running("pending", task={"attempt_no": 1, "losses": 1, "retry_at": later(30), "is_led": True})
    attempted(run, status="lost", worker="w@node-3")

    assert reason(run) == (
        "Attempt 2 of 'sentinel' is due at 2026-01-31 12:00:30 UTC: the last one was lost with worker w@node-3."
    )


def test_a_long_error_is_cut_within_a_reason(running: Make) -> None:
    run = running("pending", task={"attempt_no": 1, "retry_at": later(30)})
    attempted(run, status="failed", error={"code": "x", "message": "m" * 10_000})

    assert len(reason(run) or "") < 320


def test_a_claimed_task_whose_worker_is_silent_says_until_when_it_is_waited_for(running: Make) -> None:
    run = running("running")
    attempted(run, status="running", worker="w@node-3", claimed_at=NOW, seen_at=later(10), lease_until=later(70))

    assert reason(run, now=later(20)) is None
    assert reason(run, now=later(50)) == (
        "Nothing was heard of worker 'w@node-3', which has 'sentinel', since 2026-01-31 12:00:10 UTC; "
        "unless it speaks up, the attempt is lost at 2026-01-31 12:01:10 UTC."
    )


def test_a_lease_that_is_over_says_what_is_waited_for(running: Make) -> None:
    run = running("running")
    attempted(run, status="running", worker="w@node-3", claimed_at=NOW, seen_at=later(10), lease_until=later(70))

    assert reason(run, now=later(71)) == (
        "Nothing was heard of worker 'w@node-3', which has 'sentinel', since 2026-01-31 12:00:10 UTC; "
        "the attempt is lost once the Task Publisher has listened for 60 s without a break."
    )


def test_a_task_that_a_silent_worker_began_and_had_not_claimed_says_who_gets_it(running: Make) -> None:
    services.announce(manifest("sentinel", worker="w@node-3"), now=NOW)
    run = running("running")
    attempted(run, status="running", worker="w@node-3", started_at=NOW)
    silent = "Nothing was heard of worker 'w@node-3', which has 'sentinel', since 2026-01-31 12:00:00 UTC; "

    while_fresh = reason(run, now=later(20))
    with_nobody = reason(run, now=later(50))
    services.announce(manifest("sentinel", worker="another"), now=later(50))
    with_another = reason(run, now=later(50))

    assert while_fresh is None
    assert (
        with_nobody == f"{silent}if it is gone, RabbitMQ delivers the task to a worker of this name once there is one."
    )
    assert with_another == f"{silent}if it is gone, RabbitMQ delivers the task to the next worker of this name."


def test_a_paused_project_is_the_reason_of_what_was_accepted_only(running: Make, asha: User) -> None:
    services.pause("ids-drr", by=asha, reason="", now=NOW)
    waiting = services.accept(parse_pipeline(pipeline("sentinel")), by=asha, now=NOW).run

    assert reason(waiting) == "Project 'ids-drr' has been paused by asha since 2026-01-31 12:00:00 UTC."
    assert reason(running()) == "The Task Publisher is about to publish 'sentinel'."


def test_reasons_take_as_many_queries_for_many_runs_as_for_one(running: Make) -> None:
    services.announce(manifest("sentinel"), now=NOW)

    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            list_runs()
        return len(captured)

    attempted(running("published"))
    running(data_url="https://example.org/a.csv")
    services.accept(parse_pipeline(pipeline("sentinel")), by=User.objects.get(), now=NOW)
    for_one = count()
    for _ in range(5):
        attempted(running("published"))
        running(data_url="https://example.org/a.csv")
        attempted(running("pending", task={"attempt_no": 1, "retry_at": later(5)}))
        services.accept(parse_pipeline(pipeline("sentinel")), by=User.objects.get(), now=NOW)

    assert count() == for_one


def list_runs() -> queries.RunPage:
    return queries.list_runs(queries.RunFilter(), before=None, limit=50, now=NOW)


def test_the_engine_itself_brings_each_reason_about(asha: User) -> None:
    """The reasons in the order in which one run meets them, none of them written into a row by hand."""
    engine = Engine()
    seen: list[str | None] = []

    def look() -> None:
        seen.append(reason(run, now=engine.clock()))

    services.pause(PROJECT, by=asha, reason="the archive moves", now=engine.clock())
    run = engine.accept("sentinel", data_url="https://example.org/a.csv")
    engine.relay.start()
    look()
    services.unpause(PROJECT)
    look()
    engine.relay.start()
    look()
    with engine.broker_away():
        engine.relay.set_data(run.number, Inline(1))
        engine.clock.advance(6)
        look()
    engine.relay.resend()
    look()
    services.announce(manifest("sentinel", free_slots=0), now=engine.clock())
    look()
    services.beat([Beat(worker=manifest().worker, at=NOW, free_slots=1, holds=())], now=engine.clock())
    look()
    services.announce(manifest("sentinel", state="draining"), now=engine.clock())
    look()
    engine.clock.advance(3600)
    look()
    engine.start(engine.take("sentinel").token)
    look()

    assert seen == [
        "Project 'generic-transformations' has been paused by asha since 2026-01-31 12:00:00 UTC: the archive moves.",
        "Waiting for the Task Publisher to start it.",
        "Fetching data_url.",
        f"RabbitMQ is unreachable or takes no messages: 'sentinel' waits to be handed over since {NOON}.",
        "No worker has ever announced 'sentinel'.",
        "The only slot for 'sentinel' is busy.",
        "RabbitMQ has 'sentinel'; a worker with a free slot takes it next.",
        "Every worker that serves 'sentinel' is being drained: it ends what it has and takes nothing new.",
        "Every worker that serves 'sentinel' has been offline since 2026-01-31 12:00:06 UTC.",
        None,
    ]


def test_the_engine_itself_brings_silence_and_retries_about(asha: User) -> None:
    engine = Engine()
    run = engine.accept("sentinel")
    Task.objects.filter(run=run).update(policy={"retries": 1, "backoff": 60})
    engine.relay.start()

    held = engine.take("sentinel").token
    engine.claim(held)
    engine.clock.advance(40)
    silent = reason(run, now=engine.clock())
    engine.beat(held)
    heard = reason(run, now=engine.clock())
    engine.finish(held, error=TaskError(code="unavailable", message="the archive is down"))
    retried = reason(run, now=engine.clock())
    engine.clock.advance(31)
    engine.relay.retry()
    services.announce(manifest("sentinel"), now=engine.clock())
    published = reason(run, now=engine.clock())

    assert (silent or "").startswith(
        "Nothing was heard of worker 'w', which has 'sentinel', since 2026-01-31 12:00:00 UTC; unless it speaks up, "
    )
    assert heard is None
    assert retried == (
        "Attempt 2 of 'sentinel' is due at 2026-01-31 12:01:10 UTC: "
        "the last one failed with unavailable, the archive is down."
    )
    assert published == "RabbitMQ has 'sentinel'; a worker with a free slot takes it next."


def test_a_run_whose_publisher_waits_for_prefect_says_so_by_itself(asha: User) -> None:
    engine = Engine(leads=frozenset({"sentinel"}))
    run = engine.accept("sentinel")
    engine.relay.start()

    assert reason(run) == (
        "Waiting for a Prefect slot: a publisher of project 'generic-transformations' leads 'sentinel'."
    )
