"""Cancel, resume, rerun and pause, on both databases, over the API and the engine itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from shepherd.errors import ConflictError, NotFoundError
from shepherd.pipelines import services
from shepherd.pipelines.models import Attempt, Run, StatusChange, Task
from shepherd.ui.templatetags.shepherd_ui import took
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline
from tests.support.engine import Engine, statuses
from tests.support.web import NOW, Api, CountingBell, an_offer, faults_of, manifest, pipeline

ERROR = TaskError(code="unknown_column", message="no column 'a'")
NAMES = ("scrape", "clean", "upload")


@pytest.fixture
def engine(asha: User) -> Engine:
    return Engine()


def accepted(api: Api, *names: str, **changes: Any) -> Run:
    return Run.objects.get(number=api.post(pipeline(*(names or NAMES), **changes)).json()["number"])


def stopped(api: Api, engine: Engine) -> Run:
    """Return a run whose second task failed."""
    run = accepted(api)
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline("rows"))
    engine.finish(engine.take("clean").token, error=ERROR)
    assert statuses(run) == ["failed", "succeeded", "failed", "pending"]
    return run


def changes(run: Run, *, since: int = 0) -> list[tuple[str, str, str, str]]:
    """Return what became of the run and its tasks, in order: of what, from, to, by whom."""
    rows = StatusChange.objects.filter(run=run, number__gt=since).order_by("number")
    return [(row.task.name if row.task else "run", row.from_status, row.to_status, row.by) for row in rows]


def latest() -> int:
    return StatusChange.objects.order_by("-number").values_list("number", flat=True)[0]


def test_an_accepted_run_that_is_cancelled_never_starts(api: Api, engine: Engine, bell: CountingBell) -> None:
    run = accepted(api)
    rings, since = bell.rings, latest()

    answer = api.act(f"/runs/{run.number}/cancel", {"reason": "not needed"})
    engine.relay.start()

    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (200, "cancelled", None)
    assert statuses(run) == ["cancelled", "cancelled", "pending", "pending"]
    assert changes(run, since=since) == [
        ("scrape", "pending", "cancelled", "asha"),
        ("run", "accepted", "cancelled", "asha"),
    ]
    assert set(StatusChange.objects.filter(number__gt=since).values_list("reason", flat=True)) == {"not needed"}
    assert bell.rings == rings + 1
    assert not engine.published()


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_cancelled_task_takes_its_attempt_back_and_no_late_reply(api: Api, engine: Engine, is_begun: bool) -> None:
    run = accepted(api)
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline("rows"))
    token = engine.take("clean").token
    if is_begun:
        engine.start(token)

    answer = api.act(f"/runs/{run.number}/cancel").json()
    assert Attempt.objects.get(token=token).is_queued
    engine.finish(token, Inline("late"))

    assert statuses(run) == ["cancelled", "succeeded", "cancelled", "pending"]
    attempt = Attempt.objects.get(token=token)
    assert (attempt.status, attempt.finished_at is None) == ("withdrawn", False)
    assert [entry["status"] for entry in answer["tasks"][1]["attempts"]] == ["withdrawn"]
    assert Task.objects.get(run=run, name="clean").result is None


def test_cancelling_twice_answers_the_same_and_writes_once(api: Api, engine: Engine) -> None:
    run = accepted(api)
    engine.relay.start()

    first = api.act(f"/runs/{run.number}/cancel")
    since = latest()
    second = api.act(f"/runs/{run.id}/cancel", {"reason": "again"})

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert changes(run, since=since) == []


def test_a_run_that_waits_for_its_data_can_be_cancelled(api: Api, engine: Engine) -> None:
    run = accepted(api, data_url="https://example.org/a.csv")
    engine.relay.start()

    assert api.act(f"/runs/{run.number}/cancel").status_code == 200
    engine.relay.set_data(run.number, Inline(1))

    assert statuses(run) == ["cancelled", "cancelled", "pending", "pending"]
    assert not engine.published()


def test_what_has_ended_otherwise_is_not_cancelled(api: Api, engine: Engine) -> None:
    failed = stopped(api, engine)
    done = accepted(api, "scrape")
    engine.relay.start()
    engine.finish(engine.take("scrape").token)

    answers = [api.act(f"/runs/{run.number}/cancel") for run in (failed, done)]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json()["error"]["message"] == (
        f"run {failed.number} has failed at 'clean' already: nothing is left to cancel"
    )
    assert "has succeeded already" in answers[1].json()["error"]["message"]
    assert statuses(done) == ["succeeded", "succeeded"]


def test_a_failed_run_goes_on_at_the_task_that_failed(api: Api, engine: Engine, bell: CountingBell) -> None:
    run = stopped(api, engine)
    rings, since = bell.rings, latest()

    answer = api.act(f"/runs/{run.number}/resume")

    assert (answer.status_code, answer.json()["status"]) == (200, "running")
    assert bell.rings == rings + 1
    assert changes(run, since=since) == [
        ("clean", "failed", "pending", "asha"),
        ("run", "failed", "running", "asha"),
    ]
    assert statuses(run) == ["running", "succeeded", "pending", "pending"]
    task = Task.objects.get(run=run, name="clean")
    assert task.retry_at is not None
    assert (task.error, task.failures, task.losses, task.finished_at) == (None, 0, 0, None)
    run.refresh_from_db()
    assert (run.error, run.finished_at, run.prefect_state, run.owner_epoch) == (None, None, "waiting", 1)
    [scrape, clean, _] = api.get(f"/runs/{run.number}").json()["tasks"]
    assert len(scrape["attempts"]) == 1
    assert clean["attempts"][0]["error"]["code"] == "unknown_column"


def test_a_resumed_run_took_no_time_while_it_was_over(api: Api, engine: Engine) -> None:
    run = stopped(api, engine)
    now = datetime.now(UTC)
    began_at, failed_at, ends_at = (now + timedelta(hours=hours) for hours in (-10, -9, 2))
    Run.objects.filter(number=run.number).update(started_at=began_at, finished_at=failed_at)

    api.act(f"/runs/{run.number}/resume")
    Run.objects.filter(number=run.number).update(status="failed", finished_at=ends_at)

    # One hour before it failed, and two after it was resumed; the call itself may take a while.
    assert api.get(f"/runs/{run.number}").json()["duration_s"] == pytest.approx(3 * 3600, abs=120)
    run.refresh_from_db()
    assert took(run, now) in {"3 h 0 min", "2 h 59 min", "2 h 58 min"}


def test_resuming_twice_changes_nothing_more(api: Api, engine: Engine) -> None:
    run = stopped(api, engine)

    first = api.act(f"/runs/{run.number}/resume")
    since = latest()
    second = api.act(f"/runs/{run.number}/resume", {"contexts": {}})
    corrected = api.act(f"/runs/{run.number}/resume", {"contexts": {"clean": {"column": "b"}}})

    assert first.json() == second.json()
    assert changes(run, since=since) == []
    assert corrected.status_code == 409
    assert "is running already: its contexts can't be changed now" in corrected.json()["error"]["message"]


def test_a_succeeded_run_is_not_resumed(api: Api, engine: Engine) -> None:
    run = accepted(api, "scrape")
    engine.relay.start()
    engine.finish(engine.take("scrape").token)

    answer = api.act(f"/runs/{run.number}/resume")

    assert answer.status_code == 409
    assert "it can be run again" in answer.json()["error"]["message"]


def test_corrected_contexts_are_kept_beside_what_was_sent(api: Api, engine: Engine) -> None:
    run = stopped(api, engine)

    answer = api.act(f"/runs/{run.number}/resume", {"contexts": {"clean": {"column": "b"}, "3": {"key": 1}}}).json()

    assert [(task["context"], task["corrected_context"]) for task in answer["tasks"]] == [
        ({}, None),
        ({}, {"column": "b"}),
        ({}, {"key": 1}),
    ]


@pytest.mark.parametrize(
    ("contexts", "path", "reason"),
    [
        ({"nowhere": {}}, "contexts.nowhere", "is neither the name nor the order_no of a task of this run"),
        ({"9": {}}, "contexts.9", "is neither the name nor the order_no of a task of this run"),
        ({"scrape": {}}, "contexts.scrape", "has succeeded, and is not repeated: its context can't be changed"),
        ({"clean": []}, "contexts.clean", "must be an object"),
        ({"clean": {}, "2": {}}, "contexts.2", "means the same task as 'clean'"),
        ({"upload": {"n": "x"}}, "contexts.upload.n", 'must be of type integer, is "x"'),
        ({"3": {"n": 1, "m": 1}}, "contexts.3.m", "is not known here; these are: n"),
    ],
)
def test_contexts_that_fit_no_task_are_refused_by_their_path(
    api: Api, engine: Engine, contexts: Any, path: str, reason: str
) -> None:
    schema = {"properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    run = stopped(api, engine)
    services.announce(manifest(an_offer("upload", schema)), now=NOW)
    since = latest()

    answer = api.act(f"/runs/{run.number}/resume", {"contexts": contexts})

    assert (answer.status_code, faults_of(answer)) == (422, {path: reason})
    assert changes(run, since=since) == []
    assert not Task.objects.filter(corrected_context__isnull=False)


def test_a_name_that_several_tasks_have_must_be_said_by_number(api: Api, engine: Engine) -> None:
    run = accepted(api, "clean", "clean")
    engine.relay.start()
    engine.finish(engine.take("clean").token, error=ERROR)

    by_name = api.act(f"/runs/{run.number}/resume", {"contexts": {"clean": {"a": 1}}})
    by_number = api.act(f"/runs/{run.number}/resume", {"contexts": {"1": {"a": 1}}})

    assert "means 2 tasks of this run" in faults_of(by_name)["contexts.clean"]
    assert by_number.json()["tasks"][0]["corrected_context"] == {"a": 1}


def test_a_run_cancelled_before_its_start_waits_for_it_again(api: Api, engine: Engine) -> None:
    run = accepted(api)
    api.act(f"/runs/{run.number}/cancel")

    answer = api.act(f"/runs/{run.number}/resume").json()
    engine.relay.start()

    assert answer["status"] == "accepted"
    assert statuses(run) == ["running", "published", "pending", "pending"]


def test_a_run_whose_data_never_came_fetches_it_again(api: Api, engine: Engine) -> None:
    run = accepted(api, data_url="https://example.org/a.csv")
    engine.relay.start()
    engine.relay.fail(run.number, TaskError(code="data_unavailable", message="404"))

    answer = api.act(f"/runs/{run.number}/resume").json()

    assert (answer["status"], answer["error"], answer["reason"]) == ("running", None, "Fetching data_url.")
    engine.relay.set_data(run.number, Inline(7))
    assert engine.take("scrape").data == Inline(7)


def test_what_a_publisher_leads_is_left_to_its_flow(api: Api, asha: User) -> None:
    engine = Engine(leads=frozenset({"scrape"}))
    run = accepted(api, "scrape", "clean")
    engine.relay.start()
    task = Task.objects.get(run=run, name="scrape")
    engine.relay.publish(task.number, context={"made": "by hand"})
    engine.finish(engine.take("scrape").token, error=ERROR)

    api.act(f"/runs/{run.number}/resume")

    task.refresh_from_db()
    assert (task.status, task.retry_at) == ("pending", None)
    assert api.get(f"/runs/{run.number}").json()["reason"].startswith("Waiting for a Prefect slot")


def test_a_rerun_is_a_new_run_that_names_its_origin(api: Api, engine: Engine) -> None:
    run = stopped(api, engine)
    api.act(f"/runs/{run.number}/resume", {"contexts": {"clean": {"column": "b"}}})

    answer = api.act(f"/runs/{run.number}/rerun", {"contexts": {"scrape": {"since": 2020}}})

    made = answer.json()
    assert (answer.status_code, answer["Location"]) == (202, f"/api/v1/runs/{made['id']}")
    assert (made["origin"], made["status"]) == (run.number, "accepted")
    assert [(task["name"], task["context"]) for task in made["tasks"]] == [
        ("scrape", {"since": 2020}),
        ("clean", {"column": "b"}),
        ("upload", {}),
    ]
    assert statuses(run)[0] == "running"


def test_a_rerun_repeated_with_its_key_is_the_same_run(api: Api, engine: Engine) -> None:
    run, other = accepted(api), accepted(api)

    def rerun(number: int, **body: Any) -> Any:
        return api.act(f"/runs/{number}/rerun", body, **{"Idempotency-Key": "k"})

    first, again = rerun(run.number), rerun(run.number)
    of_another, with_another_body = rerun(other.number), rerun(run.number, contexts={"clean": {"a": 1}})

    assert first.json()["number"] == again.json()["number"]
    assert (of_another.status_code, with_another_body.status_code) == (409, 409)
    assert Run.objects.count() == 3


def test_a_rerun_is_a_sample_as_its_origin_was_unless_it_says_otherwise(api: Api, engine: Engine) -> None:
    address = f"/runs/{accepted(api).number}/rerun"

    def rows_of(address: str, **body: Any) -> Any:
        made = api.act(address, body).json()
        return made["sample_rows"], f"/runs/{made['number']}/rerun"

    rows, of_sample = rows_of(address, sample_rows=1000)
    assert rows == 1000
    assert rows_of(of_sample)[0] == 1000
    assert rows_of(of_sample, sample_rows=None, contexts={})[0] is None
    assert rows_of(address)[0] is None


def test_a_rerun_refuses_what_is_no_number_of_rows(api: Api, engine: Engine) -> None:
    address = f"/runs/{accepted(api).number}/rerun"

    for rows in (0, -1, "1000", 1.5, True, 2**40):
        assert list(faults_of(api.act(address, {"sample_rows": rows}))) == ["sample_rows"]
    assert list(faults_of(api.act(address, {"samples": 1}))) == ["samples"]
    assert list(faults_of(api.act(address.replace("rerun", "resume"), {"sample_rows": 1}))) == ["sample_rows"]


def test_a_paused_project_starts_nothing_until_it_goes_on(api: Api, engine: Engine, bell: CountingBell) -> None:
    under_way = accepted(api, "scrape")
    engine.relay.start()
    paused = api.act("/projects/ids_drr/pause", {"reason": "the archive moves"})
    again = api.act("/projects/ids-drr/pause", {"reason": "something else"})
    waiting, elsewhere = accepted(api, "clean"), accepted(api, "clean", project="generic_transformations")

    engine.relay.start()

    assert (paused.status_code, again.status_code) == (200, 200)
    assert paused.json() == again.json()
    assert (paused.json()["paused"]["by"], paused.json()["paused"]["reason"]) == ("asha", "the archive moves")
    assert [statuses(run)[0] for run in (under_way, waiting, elsewhere)] == ["running", "accepted", "running"]
    reason = api.get(f"/runs/{waiting.number}").json()["reason"]
    assert reason.startswith("Project 'ids-drr' has been paused by asha since 20")
    assert reason.endswith(": the archive moves.")

    rings = bell.rings
    assert api.act("/projects/ids-drr/unpause").json()["paused"] is None
    assert api.act("/projects/ids-drr/unpause").status_code == 200
    assert bell.rings == rings + 2
    engine.relay.start()
    assert statuses(waiting)[0] == "running"


def test_nobody_cancels_what_does_not_exist(api: Api, asha: User) -> None:
    with pytest.raises(NotFoundError):
        services.cancel(7, by=asha, now=NOW)
    with pytest.raises(NotFoundError):
        services.resume(7, contexts={}, by=asha, now=NOW)
    assert api.act("/projects/nowhere/pause").status_code == 404
    assert api.act("/projects/%00/unpause").status_code == 404


def test_a_conflict_is_an_error_of_the_model(api: Api, engine: Engine, asha: User) -> None:
    run = stopped(api, engine)

    with pytest.raises(ConflictError, match="has failed at 'clean'"):
        services.cancel(run.number, by=asha, now=NOW)
