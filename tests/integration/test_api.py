"""The API over Django's own test client, on both databases."""

import json
import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shepherd.pipelines import services
from shepherd.pipelines.models import ApiToken, Attempt, LogLine, Run, Task
from tests.support.web import NOW, Api, an_offer, browser, faults_of, manifest, pipeline

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def test_a_submitted_pipeline_is_answered_with_its_run(api: Api) -> None:
    response = api.post(pipeline("sentinel", "sentinel_upload_to_s3"))

    assert response.status_code == 202
    answer = response.json()
    assert response["Location"] == f"/api/v1/runs/{answer['id']}"
    assert (answer["status"], answer["project"], answer["accepted_by"]) == ("accepted", "ids-drr", "asha")
    assert answer["reason"] == "Waiting for the Task Publisher to start it."
    assert [(task["order_no"], task["name"], task["status"]) for task in answer["tasks"]] == [
        (1, "sentinel", "pending"),
        (2, "sentinel_upload_to_s3", "pending"),
    ]
    assert [warning["path"] for warning in answer["warnings"]] == [
        "transformers_list[0].name",
        "transformers_list[1].name",
    ]
    assert answer["prefect"] == {"flow_run_id": None, "url": None, "state": "waiting", "note": ""}


def test_a_run_is_found_by_its_id_and_by_its_number(api: Api) -> None:
    made = api.post(pipeline("sentinel")).json()

    by_id, by_number = api.get(f"/runs/{made['id']}"), api.get(f"/runs/{made['number']}")

    assert by_id.status_code == by_number.status_code == 200
    assert by_id.json() == by_number.json()


def test_a_context_comes_back_exactly_as_it_was_sent(api: Api) -> None:
    context = (
        '{"z":true,"a":null,"it\'s":"\\"x\\" ünï \\u6d2a \\u0000","n":[[1,[2.5,-0.0,1e3,{}]],12345678901234567890]}'
    )
    body = json.dumps(pipeline()).replace(
        '"transformers_list": []', f'"transformers_list":[{{"name":"a","order_no":1,"context":{context}}}]'
    )

    number = api.post(body.encode()).json()["number"]

    assert json.dumps(api.get(f"/runs/{number}").json()["tasks"][0]["context"]) == json.dumps(json.loads(context))


@pytest.mark.parametrize("count", [1, 200])
def test_up_to_200_tasks_are_accepted(api: Api, count: int) -> None:
    assert len(api.post(pipeline(*["same_name"] * count)).json()["tasks"]) == count


def test_what_looks_like_a_path_is_only_text_in_a_context(api: Api) -> None:
    context = {"../": "../../etc/passwd", "absolute": "/etc/passwd", "nul": "\x00", "long": "x" * 4096}

    response = api.post(pipeline(transformers_list=[{"name": "a", "order_no": 1, "context": context}]))

    assert response.status_code == 202
    assert response.json()["tasks"][0]["context"] == context


def test_a_context_that_breaks_its_schema_is_refused_by_the_path_within(api: Api) -> None:
    schema = {"properties": {"columns": {"items": {"type": "string"}}}}
    services.announce(manifest(an_offer("skip_column", schema)), now=NOW)
    tasks = [{"name": "a", "order_no": 1}, {"name": "skip_column", "order_no": 2, "context": {"columns": [1]}}]

    response = api.post(pipeline(transformers_list=tasks))

    assert response.status_code == 422
    assert list(faults_of(response)) == ["transformers_list[1].context.columns[0]"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(context=st.dictionaries(st.text(), JSON, max_size=4), name=st.text())
def test_any_context_and_any_name_are_accepted_or_refused(api: Api, context: Any, name: str) -> None:
    tasks = [{"name": "a", "order_no": 1, "context": context}]

    assert api.post(pipeline(pipeline_name=name, transformers_list=tasks)).status_code in {202, 422}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    query=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["status", "project", "name", "text", "before", "limit"], st.text(max_size=10) | st.integers()
        ),
    )
)
def test_no_filter_brings_the_server_down(api: Api, query: dict[str, Any]) -> None:
    query = {key: str(value).encode("utf-8", "replace").decode() for key, value in query.items()}

    assert api.get("/runs", **query).status_code in {200, 422}


def test_repeating_with_the_same_key_answers_with_the_first_run(api: Api) -> None:
    first = api.post(pipeline("sentinel"), **{"Idempotency-Key": "k"})
    again = api.post(pipeline("sentinel"), **{"Idempotency-Key": "k"})
    other = api.post(pipeline("another"), **{"Idempotency-Key": "k"})

    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert first.json()["id"] == again.json()["id"]
    assert other.json()["error"]["code"] == "conflict"


def test_a_token_ends_with_its_user(api: Api, asha: User) -> None:
    User.objects.filter(pk=asha.pk).update(is_active=False)

    assert api.get("/runs").status_code == 401


def test_only_the_checksum_of_a_token_is_kept(asha: User, token: str) -> None:
    assert token not in repr(ApiToken.objects.values().get())


def test_a_session_reads_without_and_writes_only_with_a_csrf_token(asha: User) -> None:
    visitor = browser(enforce_csrf_checks=True)
    visitor.force_login(asha)
    body = json.dumps(pipeline("sentinel"))

    assert visitor.get("/api/v1/runs").status_code == 200
    refused = visitor.post("/api/v1/runs", body, content_type="application/json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")

    visitor.get("/")
    csrf = {"X-CSRFToken": visitor.cookies["csrftoken"].value}
    accepted = visitor.post("/api/v1/runs", body, content_type="application/json", headers=csrf)
    assert accepted.status_code == 202


def test_a_database_that_is_away_is_said_to_be(token: str, api: Api) -> None:
    with connection.execute_wrapper(_away):
        response = api.get("/runs")

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "database_unavailable"
    assert response["Retry-After"] == "1"


def _away(*_: Any) -> None:
    from django.db import OperationalError

    raise OperationalError("database is locked")


def test_runs_are_listed_newest_first_in_pages(api: Api) -> None:
    made = [api.post(pipeline("sentinel")).json()["number"] for _ in range(5)]

    first = api.get("/runs", limit=2).json()
    second = api.get("/runs", limit=2, before=first["next_before"]).json()
    third = api.get("/runs", limit=2, before=second["next_before"]).json()

    assert [run["number"] for page in (first, second, third) for run in page["runs"]] == made[::-1]
    assert third["next_before"] is None


def test_runs_are_filtered(api: Api) -> None:
    flood = api.post(pipeline("sentinel", pipeline_name="flood 100%")).json()["number"]
    rain = api.post(pipeline("imd", pipeline_name="rain", project="generic_transformations")).json()["number"]

    def found(**query: Any) -> list[int]:
        return [run["number"] for run in api.get("/runs", **query).json()["runs"]]

    assert found(project="ids_drr") == [flood]
    assert found(name="rain") == [rain]
    assert found(text="100%") == [flood]
    assert found(text="SENTI") == [flood]
    assert found(text=str(rain)) == [rain]
    assert found(status="succeeded") == []
    assert found(text="%") == [flood]


def test_a_list_takes_as_many_queries_for_many_runs_as_for_one(api: Api) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get("/runs").status_code == 200
        return len(captured)

    api.post(pipeline("sentinel"))
    for_one = queries()
    for _ in range(10):
        api.post(pipeline("sentinel", "b", "c"))

    assert queries() == for_one


def test_a_run_takes_as_many_queries_for_many_tasks_as_for_one(api: Api) -> None:
    def queries(number: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(f"/runs/{number}").status_code == 200
        return len(captured)

    small = api.post(pipeline("sentinel")).json()["number"]
    large = api.post(pipeline(*["sentinel"] * 100)).json()["number"]
    for task in Task.objects.all():
        attempted(task)

    assert queries(small) == queries(large)


def attempted(task: Task) -> Attempt:
    return Attempt.objects.create(
        task=task,
        attempt_no=1,
        token=f"secret-{task.pk}",
        context={},
        data={"inline": "hidden-input"},
        published_at=NOW,
    )


def test_the_token_of_an_attempt_never_leaves_the_server(api: Api, asha: User) -> None:
    number = api.post(pipeline("sentinel")).json()["number"]
    attempt = attempted(Task.objects.get())
    LogLine.objects.create(attempt=attempt, n=1, at=NOW, level="INFO", text="reading")
    User.objects.filter(pk=asha.pk).update(is_staff=True, is_superuser=True)
    visitor = browser()
    visitor.force_login(asha)
    task = Task.objects.get().pk

    answers = [api.get(path) for path in ("/runs", f"/runs/{number}", f"/runs/{number}/logs")]
    pages = [
        visitor.get(path)
        for path in (
            "/",
            f"/runs/{number}/",
            f"/runs/{number}/log/",
            f"/admin/pipelines/run/{number}/change/",
            f"/admin/pipelines/task/{task}/change/",
        )
    ]

    assert [answer.status_code for answer in [*answers, *pages]] == [200] * 8
    assert not [answer for answer in [*answers, *pages] if b"secret-" in answer.content]


def test_projects_are_those_of_the_folder(api: Api) -> None:
    assert api.get("/projects").json() == [
        {"name": "generic-transformations", "has_flow": False, "paused": None, "faults": []},
        {"name": "ids-drr", "has_flow": True, "paused": None, "faults": []},
    ]


def test_the_sample_of_the_documentation_is_accepted(api: Api) -> None:
    schema = browser().get("/api/openapi.json").json()
    body = schema["paths"]["/api/v1/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert api.post(body["example"]).status_code == 202


def test_posts_at_once_are_all_accepted(token: str) -> None:
    answers: list[int] = []

    def call() -> None:
        answers.append(Api(token).post(pipeline("sentinel")).status_code)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [202] * 8
    assert Run.objects.count() == 8


def test_health_needs_no_login(asha: User) -> None:
    assert browser().get("/healthz").json() == {"status": "ok"}
