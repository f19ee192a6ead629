"""What the API refuses before it asks a database: on SQLite alone, since a fresh PostgreSQL takes a second."""

import gzip
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shepherd.pipelines.models import Run
from tests.support.web import Api, browser, faults_of, pipeline

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
ODD_BODIES = {
    "empty": b"",
    "nothing": b"   ",
    "no JSON": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "1e400": b'{"a": 1e400}',
    "huge integer": b'{"a": ' + b"9" * 5000 + b"}",
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "duplicate key": b'{"project": "a", "project": "b"}',
    "duplicate key within": b'{"transformers_list": [{"context": {"a": 1, "a": 2}}]}',
    "101 deep": b"[" * 101 + b"]" * 101,
    "10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "10,000 open": b'{"a":' * 10_000,
    "NUL": b'{"pipeline_name": "a\\u0000b"}',
    "raw NUL": b"\x00",
    "BOM": b"\xef\xbb\xbf{}",
    "a list": b"[]",
    "a string": b'"sentinel"',
    "a form": b"pipeline_name=a&project=b",
}


@pytest.fixture
def database(sqlite_database: str) -> str:
    return sqlite_database


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "", "nonsense"])
def test_any_content_type_will_do(api: Api, content_type: str) -> None:
    assert api.post(pipeline("sentinel"), content_type=content_type).status_code == 202


@pytest.mark.parametrize("name", ODD_BODIES)
def test_an_odd_body_is_refused_with_a_reason_and_nothing_is_stored(api: Api, name: str) -> None:
    response = api.post(ODD_BODIES[name])

    assert response.status_code == 422
    assert all(fault["reason"] for fault in response.json()["error"]["faults"])
    assert response.json()["error"]["code"] == "invalid_input"
    assert not Run.objects.exists()


def test_a_fault_names_its_field(api: Api) -> None:
    tasks = [{"name": "a", "order_no": True, "context": {}}, {"name": "b-c", "order_no": 1}]

    faults = faults_of(api.post(pipeline(transformers_list=tasks)))

    assert list(faults) == ["transformers_list[0].order_no", "transformers_list[1].name"]
    assert faults["transformers_list[0].order_no"] == "must be an integer"


def test_a_duplicate_key_is_named_by_its_path(api: Api) -> None:
    assert "transformers_list[0].context.a" in faults_of(api.post(ODD_BODIES["duplicate key within"]))


@pytest.mark.parametrize(("surplus", "status"), [(-1, 202), (0, 202), (1, 413), (16 * 1024 * 1024, 413)])
def test_a_body_may_have_one_mebibyte(api: Api, surplus: int, status: int) -> None:
    document = json.dumps(pipeline("sentinel")).encode()

    response = api.post(document + b" " * (1024 * 1024 + surplus - len(document)))

    assert response.status_code == status
    if status == 413:
        assert response.json()["error"]["code"] == "too_large"


def test_a_compressed_body_is_refused_unopened(api: Api) -> None:
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=9)

    response = api.post(bomb, **{"Content-Encoding": "gzip"})

    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("count", [0, 201])
def test_no_task_and_201_tasks_are_refused(api: Api, count: int) -> None:
    assert list(faults_of(api.post(pipeline(*["same_name"] * count)))) == ["transformers_list"]


@pytest.mark.parametrize("name", ["../etc", "/abs", "a\x00", "x" * 4096, "a.b", "ünï", "a b", ""])
def test_a_name_outside_the_grammar_is_refused_wherever_it_stands(api: Api, name: str) -> None:
    assert list(faults_of(api.post(pipeline(name)))) == ["transformers_list[0].name"]
    assert list(faults_of(api.post(pipeline("a", project=name)))) == ["project"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=JSON)
def test_no_document_brings_the_server_down(api: Api, document: Any) -> None:
    assert api.post({"transformers_list": document}).status_code == 422
    assert api.post(json.dumps(document).encode()).status_code == 422


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_no_bytes_bring_the_server_down(api: Api, content: bytes) -> None:
    assert api.post(content).status_code == 422


HANDLES = {
    "cancel": "reason",
    "resume": "contexts",
    "rerun": "contexts",
}


@pytest.fixture
def number(api: Api) -> int:
    """A run that can be cancelled and run again."""
    made: int = api.post(pipeline("sentinel")).json()["number"]
    return made


@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("name", [name for name in ODD_BODIES if name != "empty"])
def test_an_odd_body_moves_no_run(api: Api, number: int, handle: str, name: str) -> None:
    response = api.act(f"/runs/{number}/{handle}", ODD_BODIES[name])

    assert response.status_code == 422
    assert all(fault["reason"] for fault in response.json()["error"]["faults"])
    assert list(Run.objects.values_list("number", "status")) == [(number, "accepted")]


@pytest.mark.parametrize("handle", HANDLES)
def test_a_body_of_a_handle_may_have_one_mebibyte(api: Api, number: int, handle: str) -> None:
    assert api.act(f"/runs/{number}/{handle}", b"{}" + b" " * 1024 * 1024).status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("cancel", {"contexts": {}}, "contexts"),
        ("cancel", {"reason": 1}, "reason"),
        ("cancel", {"reason": None}, "reason"),
        ("cancel", {"reason": "x" * 201}, "reason"),
        ("cancel", {"reason": "\0"}, "reason"),
        ("resume", {"reason": "x"}, "reason"),
        ("resume", {"contexts": []}, "contexts"),
        ("resume", {"contexts": None}, "contexts"),
        ("rerun", {"contexts": {"": {}}}, "contexts."),
        ("rerun", {"contexts": {"x" * 5000: {}}}, f"contexts.{'x' * 100}"),
        ("rerun", {"contexts": {"\0": {}}}, "contexts.\0"),
        ("rerun", {"contexts": {"sentinel": None}}, "contexts.sentinel"),
    ],
)
def test_a_field_that_a_handle_does_not_take_is_named(api: Api, number: int, path: str, body: Any, fault: str) -> None:
    response = api.act(f"/runs/{number}/{path}", body)

    assert response.status_code == 422
    assert list(faults_of(response)) == [fault]


@pytest.mark.parametrize("handle", HANDLES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=JSON)
def test_no_document_brings_a_handle_down(api: Api, number: int, handle: str, document: Any) -> None:
    Run.objects.filter(number=number).update(status="failed")

    for body in (document, {HANDLES[handle]: document}, {"contexts": {"sentinel": document}}):
        assert api.act(f"/runs/{number}/{handle}", json.dumps(body).encode()).status_code in {200, 202, 409, 422}


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"reason": 1}', b'{"x": 1}'])
def test_an_odd_body_pauses_no_project(api: Api, body: bytes) -> None:
    assert api.act("/projects/ids-drr/pause", body).status_code == 422
    assert api.get("/projects").json()[1]["paused"] is None


def test_a_stranger_moves_no_run_and_pauses_no_project(api: Api, number: int) -> None:
    stranger = browser(enforce_csrf_checks=True)

    for path in (
        *(f"runs/{number}/{handle}" for handle in HANDLES),
        "projects/ids-drr/pause",
        "projects/ids-drr/unpause",
    ):
        response = stranger.post(f"/api/v1/{path}", b"{}", content_type="application/json")
        assert response.status_code == 401
    assert list(Run.objects.values_list("number", "status")) == [(number, "accepted")]


def test_a_session_moves_a_run_only_with_a_csrf_token(asha: User, api: Api, number: int) -> None:
    visitor = browser(enforce_csrf_checks=True)
    visitor.force_login(asha)

    for path in (
        *(f"runs/{number}/{handle}" for handle in HANDLES),
        "projects/ids-drr/pause",
        "projects/ids-drr/unpause",
    ):
        assert visitor.post(f"/api/v1/{path}", b"{}", content_type="application/json").status_code == 403
    assert list(Run.objects.values_list("number", "status")) == [(number, "accepted")]


@pytest.mark.parametrize(
    "reference",
    ["0", "7", "9" * 19, "9" * 400, "-1", "x", "%00", "..%2f", "1e3", "00000000-0000-0000-0000-000000000000"],
)
@pytest.mark.parametrize("tail", ["", "/logs", *(f"/{handle}" for handle in HANDLES)])
def test_a_run_that_does_not_exist_is_not_found(api: Api, reference: str, tail: str) -> None:
    path = f"/runs/{reference}{tail}"
    response = api.act(path) if tail.strip("/") in HANDLES else api.get(path)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/runs", "/runs/1", "/runs/1/logs", "/projects", "/catalogue"])
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer \x00", "shp_x"])
def test_nobody_gets_in_without_a_token_or_a_session(asha: User, path: str, header: str) -> None:
    response = browser().get(f"/api/v1{path}", headers={"Authorization": header})

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_stranger_may_post_nothing(asha: User) -> None:
    response = browser(enforce_csrf_checks=True).post("/api/v1/runs", b"{}", content_type="application/json")

    assert response.status_code == 401
    assert not Run.objects.exists()


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("size", [100, 3 * 1024 * 1024])
def test_no_form_brings_a_session_down(asha: User, content_type: str, size: int) -> None:
    visitor = browser(enforce_csrf_checks=True)
    visitor.force_login(asha)

    response = visitor.generic("POST", "/api/v1/runs", b"&" * size, content_type=content_type)

    assert response.status_code in {400, 403, 413}
    assert response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/api/", 404),
        ("GET", "/api/v1/runs/", 404),
        ("DELETE", "/api/v1/runs", 405),
        ("PUT", "/api/v1/runs/1", 405),
        ("POST", "/api/v1/projects", 405),
    ],
)
def test_what_the_router_refuses_is_json_too(api: Api, method: str, path: str, status: int) -> None:
    response = api.ask(method, path)

    assert response.status_code == status
    assert response["Content-Type"].startswith("application/json")
    assert response.json()["error"]["code"] == {404: "not_found", 405: "method_not_allowed"}[status]


def test_the_documentation_is_whole_and_loads_nothing_from_elsewhere(asha: User) -> None:
    page = browser().get("/api/docs").content.decode()
    schema = browser().get("/api/openapi.json").json()

    assert "http://" not in page
    assert "https://" not in page
    assert set(schema["paths"]) == {
        "/api/v1/runs",
        "/api/v1/runs/{run_id}",
        "/api/v1/runs/{run_id}/logs",
        "/api/v1/runs/{run_id}/tasks/{task}/card",
        "/api/v1/runs/{run_id}/tasks/{task}/data",
        "/api/v1/runs/{run_id}/tasks/{task}/rows",
        "/api/v1/runs/{run_id}/cancel",
        "/api/v1/runs/{run_id}/resume",
        "/api/v1/runs/{run_id}/rerun",
        "/api/v1/projects/{name}/pause",
        "/api/v1/projects/{name}/unpause",
        "/api/v1/projects",
        "/api/v1/catalogue",
    }
    body = schema["paths"]["/api/v1/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["example"]["pipeline_name"] == "sentinel_pipeline"
