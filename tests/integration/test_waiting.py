"""Nothing that was accepted waits without a reason that can be said in one sentence."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import queries, services
from shepherd.pipelines.models import Attempt, Run
from tests.support.web import NOW, later, manifest, pipeline

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


def attempted(run: Run, *, confirmed_at: datetime | None = NOW, published_at: datetime = NOW) -> None:
    Attempt.objects.create(
        task=run.tasks.get(position=0),
        attempt_no=1,
        token=f"t{run.number}",
        context={},
        data={"inline": None},
        published_at=published_at,
        confirmed_at=confirmed_at,
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
