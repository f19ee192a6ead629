"""The endpoints of the system before: its addresses, answers and words, on both databases."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shepherd.pipelines import services
from shepherd.pipelines.models import Run, Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import ClaimCheck, Inline
from tests.support.engine import Engine, statuses
from tests.support.web import NOW, an_offer, browser, faults_of, manifest, pipeline

CLAIM = ClaimCheck(uri="file:///s/a.parquet", sha256="0" * 64, size=3, media_type="application/vnd.apache.parquet")


class Old:
    """A caller who knows only the old endpoints, and sends the bare token."""

    def __init__(self, token: str, **options: Any) -> None:
        self._client = browser(headers={"Authorization": token}, **options)

    def get(self, name: str, **query: Any) -> Any:
        return self._client.get(f"/transformer/{name}", query)

    def post(self, name: str, document: Any) -> Any:
        return self._client.generic("POST", f"/transformer/{name}", json.dumps(document).encode())

    def ask(self, method: str, name: str) -> Any:
        return self._client.generic(method, f"/transformer/{name}")

    def create(self, *names: str, **changes: Any) -> int:
        number: int = self.post("pipe_create", pipeline(*names, **changes)).json()["result"]
        return number


@pytest.fixture
def old(token: str) -> Old:
    return Old(token, enforce_csrf_checks=True)


def a_task(name: str, **context: Any) -> dict[str, Any]:
    return {"name": name, "order_no": 1, "context": context}


def tasks_of(number: int) -> list[tuple[int, str, Any]]:
    return list(Task.objects.filter(run=number).order_by("position").values_list("order_no", "name", "context"))


def test_a_pipeline_is_created_and_answered_with_its_number(old: Old) -> None:
    answer = old.post("pipe_create", pipeline("sentinel", "sentinel_upload_to_s3"))

    run = Run.objects.get()
    assert answer.status_code == 200
    assert answer.json() == {"result": run.number, "Success": True}
    assert (run.pipeline_name, run.project, run.status) == ("sentinel_pipeline", "ids-drr", "accepted")
    assert tasks_of(run.number) == [(1, "sentinel", {}), (2, "sentinel_upload_to_s3", {})]


def test_null_in_the_list_is_dropped_and_a_fault_keeps_its_place_as_sent(old: Old) -> None:
    services.announce(manifest(an_offer("a", {"properties": {"n": {"type": "integer"}}})), now=NOW)

    created = old.post("pipe_create", pipeline(transformers_list=[None, a_task("a"), None, a_task("b")]))
    by_grammar = old.post("pipe_create", pipeline(transformers_list=[None, a_task("b"), None, a_task("b-c")]))
    by_schema = old.post("pipe_create", pipeline(transformers_list=[None, None, a_task("a", n="x")]))
    nothing_left = old.post("pipe_create", pipeline(transformers_list=[None]))

    assert [name for _, name, _ in tasks_of(created.json()["result"])] == ["a", "b"]
    assert list(faults_of(by_grammar)) == ["transformers_list[3].name"]
    assert list(faults_of(by_schema)) == ["transformers_list[2].context.n"]
    assert list(faults_of(nothing_left)) == ["transformers_list"]
    assert [answer.status_code for answer in (by_grammar, by_schema, nothing_left)] == [422] * 3
    assert Run.objects.count() == 1


def test_the_fields_of_old_are_kept_as_labels(old: Old) -> None:
    number = old.create("a", dataset_id="d-1", res_id=7, db_action="update", pipe_action="create")

    assert Run.objects.get(number=number).labels == {
        "dataset_id": "d-1",
        "resource_identifier": 7,
        "db_action": "update",
    }


@pytest.mark.parametrize("value", [True, 1.5, [], {}, "x" * 201, 2**63])
def test_a_label_is_a_short_text_or_an_integer(old: Old, value: Any) -> None:
    answer = old.post("pipe_create", pipeline("a", dataset_id=value, surplus=1))

    assert answer.status_code == 422
    assert set(faults_of(answer)) == {"dataset_id", "surplus"}


def test_two_spellings_of_one_label_must_agree(old: Old) -> None:
    assert old.post("pipe_create", pipeline("a", res_id="1", resource_id="1")).status_code == 200
    assert list(faults_of(old.post("pipe_create", pipeline("a", res_id="1", resource_id="2")))) == ["res_id"]


def test_repeating_a_creation_with_the_same_key_makes_one_run(token: str) -> None:
    client = browser(headers={"Authorization": token, "Idempotency-Key": "k"})

    def post(document: dict[str, Any]) -> Any:
        return client.generic("POST", "/transformer/pipe_create", json.dumps(document).encode())

    first, again, other = post(pipeline("a")), post(pipeline("a")), post(pipeline("b"))

    assert first.json() == again.json()
    assert (other.status_code, other.json()["error"]["code"], other.json()["Success"]) == (409, "conflict", False)


def test_a_list_says_in_the_words_of_old_what_became_of_each_pipeline(old: Old) -> None:
    numbers = [old.create("scrape", "upload") for _ in range(3)]
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, CLAIM)
    engine.finish(engine.take("upload").token, Inline({"rows": 3}))
    engine.finish(engine.take("scrape").token, error=TaskError(code="no_such_page", message="404"))
    waiting = old.create("scrape")

    answer = old.get("pipe_list").json()

    assert (answer["Success"], answer["next_before"]) == (True, None)
    listed = answer["result"]
    assert list(listed) == [str(number) for number in [waiting, *numbers[::-1]]]
    assert [listed[str(number)]["status"] for number in [*numbers, waiting]] == [
        "Done",
        "Failed",
        "In Progress",
        "Created",
    ]
    done = listed[str(numbers[0])]
    assert set(done) == {"date", "status", "name", "pipeline"}
    assert done["name"] == "sentinel_pipeline"
    assert done["pipeline"] == [
        {"name": "scrape", "step": 1, "status": "Done", "result": CLAIM.uri},
        {"name": "upload", "step": 2, "status": "Done", "result": {"rows": 3}},
    ]
    words = [[task["status"] for task in listed[str(number)]["pipeline"]] for number in numbers[1:]]
    assert words == [["Failed", "Created"], ["Created", "Created"]]


def test_a_long_result_is_listed_as_the_address_of_its_run(old: Old) -> None:
    number = old.create("a", dataset_id="d")
    Task.objects.update(status="succeeded", result={"inline": "x" * 2_000})

    [task] = old.get("pipe_list").json()["result"][str(number)]["pipeline"]
    [full] = old.get("pipeline_filter", datasetId="d").json()["result"][0]["tasks"]

    assert task["result"] == full["result"] == full["result_url"] == f"/api/v1/runs/{number}"


def test_a_list_comes_in_pages(old: Old) -> None:
    made = [old.create("a", dataset_id="d") for _ in range(3)]

    first = old.get("pipe_list", limit=2).json()
    second = old.get("pipe_list", limit=2, before=first["next_before"]).json()
    filtered = old.get("pipeline_filter", datasetId="d", limit=2).json()

    assert [*first["result"], *second["result"]] == [str(number) for number in made[::-1]]
    assert second["next_before"] is None
    assert [run["pipeline_id"] for run in filtered["result"]] == made[:0:-1]
    assert filtered["next_before"] == made[1]


@pytest.mark.parametrize("limit", [0, 201, "x"])
def test_a_page_has_at_most_200_pipelines(old: Old, limit: Any) -> None:
    assert list(faults_of(old.get("pipe_list", limit=limit))) == ["limit"]
    assert list(faults_of(old.get("pipeline_filter", datasetId="d", limit=limit))) == ["limit"]


def test_the_pipelines_of_a_dataset_come_with_their_tasks(old: Old) -> None:
    number = old.create("scrape", "upload", dataset_id="d-1", resource_identifier="r", db_action="create")
    old.create("scrape", dataset_id="d-2")
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, CLAIM)
    engine.finish(engine.take("upload").token, error=TaskError(code="denied", message="no key"))

    for answer in (old.get("pipeline_filter", datasetId="d-1"), old.post("pipeline_filter?datasetId=d-1", {})):
        [found] = answer.json()["result"]
        assert {key: found[key] for key in ("pipeline_id", "status", "resource_id", "db_action", "error_message")} == {
            "pipeline_id": number,
            "status": "Failed",
            "resource_id": "r",
            "db_action": "create",
            "error_message": "no key",
        }
        scrape, upload = found["tasks"]
        assert (scrape["task_name"], scrape["order_no"], scrape["context"]) == ("scrape", 1, {})
        assert (scrape["status"], scrape["result_url"]) == ("Done", CLAIM.uri)
        assert (upload["status"], upload["result"], upload["error_message"]) == ("Failed", None, "no key")


def test_a_dataset_is_found_by_its_whole_id_only(old: Old) -> None:
    sent: list[Any] = ["d", "D", "d1", 1, "1", 11, '"d"', "d\\", '","dataset_id":"d', "ü%_\0"]
    numbers = [old.create("a", db_action="update", dataset_id=value) for value in sent]
    last = old.create("a", dataset_id=1)
    old.create("a", resource_identifier="d")
    old.create("a")

    def found(value: str) -> list[int]:
        return [run["pipeline_id"] for run in old.get("pipeline_filter", datasetId=value).json()["result"]]

    assert found("1") == [last, numbers[4], numbers[3]]
    assert found("01") == []
    for value, number in zip(sent, numbers, strict=True):
        if str(value) != "1":
            assert found(str(value)) == [number], value


def test_a_dataset_must_be_named(old: Old) -> None:
    assert list(faults_of(old.get("pipeline_filter"))) == ["datasetId"]
    assert list(faults_of(old.get("pipeline_filter", datasetId=""))) == ["datasetId"]


def test_lists_take_as_many_queries_for_many_pipelines_as_for_one(old: Old) -> None:
    def queries(name: str, **query: Any) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert old.get(name, **query).status_code == 200
        return len(captured)

    def counts() -> list[int]:
        return [queries("pipe_list"), queries("pipeline_filter", datasetId="d"), queries("trans_list")]

    old.create("a", dataset_id="d")
    services.announce(manifest("a"), now=NOW)
    for_one = counts()
    for number in range(10):
        old.create("a", "b", "c", dataset_id="d")
        services.announce(manifest(f"a{number}", "b", worker=f"w{number}"), now=NOW)

    assert counts() == for_one


def test_cloning_and_appending_take_as_many_queries_for_many_tasks_as_for_one(old: Old) -> None:
    def queries(name: str, document: Any) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert old.post(name, document).status_code == 200
        return len(captured)

    small, large = old.create("a"), old.create(*["a"] * 40)
    Run.objects.update(status="succeeded")
    Task.objects.update(status="succeeded", result={"inline": 1})

    def counts(number: int) -> list[int]:
        appended = {"p_id": number, "transformers_list": [a_task("b")]}
        return [queries("clone_pipe", {"pipeline_id": number}), queries("pipe_update", appended)]

    assert counts(small) == counts(large)


def test_the_form_of_a_task_is_made_from_its_schema(old: Old) -> None:
    texts = {"type": "array", "items": {"type": "string"}}
    schema = {
        "properties": {
            "columns": {"description": "Which to drop.", "anyOf": [texts, {"type": "string"}]},
            "column": {"type": "string"},
            "index": {"type": ["string", "null"], "format": "column"},
            "separator": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "drop_flag": {"anyOf": [{"type": "boolean"}, {"enum": ["", "True"]}]},
            "option": {"anyOf": [{"$ref": "#/$defs/Option"}, {"type": "null"}]},
            "n": {"type": "integer"},
            "numbers": {"type": "array", "items": {"type": "number"}},
            "anything": True,
        },
        "$defs": {"Option": {"enum": ["replace_all", "replace_nth", None]}},
    }
    services.announce(manifest(an_offer("anonymize", schema), "sentinel"), now=NOW)

    anonymize, sentinel = old.get("trans_list").json()

    assert sentinel == {"name": "sentinel", "context": []}
    assert anonymize["name"] == "anonymize"
    assert anonymize["context"][0] == {"name": "columns", "type": "field_multi", "desc": "Which to drop."}
    assert [(field["name"], field["type"]) for field in anonymize["context"][1:]] == [
        ("column", "field_single"),
        ("index", "field_single"),
        ("separator", "string"),
        ("drop_flag", "boolean"),
        ("option", "option_single"),
        ("n", "string"),
        ("numbers", "string"),
        ("anything", "string"),
    ]
    assert anonymize["context"][5]["options"] == ["replace_all", "replace_nth"]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": []},
        {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"properties": {"a": {"$ref": []}, "b": {"enum": 1}, "c": {"type": 1}, "d": {"anyOf": [1]}}, "$defs": 1},
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"anyOf": [{"$ref": "#/$defs/A"}] * 1000}}}}},
    ],
)
def test_no_schema_brings_the_list_down(old: Old, schema: dict[str, Any]) -> None:
    services.announce(manifest(an_offer("odd", schema)), now=NOW)

    assert [task["name"] for task in old.get("trans_list").json()] == ["odd"]


def test_tasks_appended_to_a_done_pipeline_run_on_the_data_that_it_ended_with(old: Old) -> None:
    number = old.create("scrape", data_url="", dataset_id="d-1", db_action="create")
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, CLAIM)
    appended = [a_task("rename_column", a=1), None, a_task("upload")]

    answer = old.post("pipe_update", {"p_id": number, "db_action": "update", "transformers_list": appended})
    engine.relay.start()

    new = Run.objects.get(number=answer.json()["result"])
    assert (answer.status_code, answer.json()["Success"], new.number == number) == (200, True, False)
    assert str(number) in answer.json()["message"]
    assert new.labels == {"dataset_id": "d-1", "db_action": "update"}
    assert tasks_of(new.number) == [(1, "rename_column", {"a": 1}), (1, "upload", {})]
    assert engine.take("rename_column").data == CLAIM
    assert tasks_of(number) == [(1, "scrape", {})]


def test_tasks_appended_to_a_failed_pipeline_come_after_those_that_did_not_succeed(old: Old) -> None:
    number = old.create("scrape", "clean", "upload")
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, CLAIM)
    engine.finish(engine.take("clean").token, error=TaskError(code="x", message="x"))

    new = old.post("pipe_update", {"pipeline_id": str(number), "transformers_list": [a_task("mail")]}).json()["result"]
    engine.relay.start()

    assert [name for _, name, _ in tasks_of(new)] == ["clean", "upload", "mail"]
    assert engine.take("clean").data == CLAIM


def test_a_pipeline_that_failed_at_its_first_task_fetches_its_data_anew(old: Old) -> None:
    number = old.create("scrape", data_url="https://example.org/a.csv")
    engine = Engine()
    engine.relay.start()
    engine.relay.set_data(number, CLAIM)
    engine.finish(engine.take("scrape").token, error=TaskError(code="x", message="x"))

    new = old.post("pipe_update", {"p_id": number, "transformers_list": [a_task("mail")]}).json()["result"]
    engine.relay.start()

    assert engine.heard.due[new] == "https://example.org/a.csv"
    assert statuses(Run.objects.get(number=new)) == ["running", "pending", "pending"]


def test_nothing_is_appended_to_a_pipeline_that_is_under_way(old: Old) -> None:
    number = old.create("a")

    answer = old.post("pipe_update", {"p_id": number, "transformers_list": [a_task("b")]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert Run.objects.count() == 1


def test_appending_is_checked_like_creating(old: Old) -> None:
    number = old.create(*["a"] * 200)
    Run.objects.update(status="failed")
    services.announce(manifest(an_offer("b", {"required": ["n"]})), now=NOW)

    def faults(**document: Any) -> list[str]:
        answer = old.post("pipe_update", {"p_id": number, **document})
        assert answer.status_code == 422
        return list(faults_of(answer))

    assert faults() == ["transformers_list"]
    assert faults(transformers_list=[]) == ["transformers_list"]
    assert faults(transformers_list=[None, a_task("b-c")]) == ["transformers_list[1].name"]
    assert faults(transformers_list=[a_task("b")]) == ["transformers_list"]
    assert faults(transformers_list=[a_task("b")], pipeline_name="x") == ["pipeline_name"]
    Task.objects.update(status="succeeded", result={"inline": None})
    assert faults(transformers_list=[None, a_task("b")]) == ["transformers_list[1].context.n"]


def test_a_clone_is_a_new_run_of_the_same_tasks(old: Old) -> None:
    number = old.create("scrape", "upload", data_url="https://example.org/a.csv", dataset_id="d-1", res_id="r")

    answer = old.post("clone_pipe", {"pipeline_id": number, "dataset_id": "d-2"})

    clone = Run.objects.get(number=answer.json()["result"])
    assert (answer.status_code, answer.json()["Success"], clone.number == number) == (200, True, False)
    assert (clone.pipeline_name, clone.data_url) == ("sentinel_pipeline", "https://example.org/a.csv")
    assert clone.labels == {"dataset_id": "d-2", "resource_identifier": "r"}
    assert tasks_of(clone.number) == tasks_of(number)


def test_a_clone_of_an_appended_run_begins_with_the_same_data(old: Old) -> None:
    number = old.create("scrape")
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, CLAIM)
    appended = old.post("pipe_update", {"p_id": number, "transformers_list": [a_task("upload")]}).json()["result"]

    clone = old.post("clone_pipe", {"p_id": appended}).json()["result"]

    assert Run.objects.get(number=clone).data == CLAIM.to_wire()


def test_a_clone_whose_tasks_have_changed_since_is_refused_by_their_place_in_the_earlier_run(old: Old) -> None:
    number = old.create("a", "b")
    services.announce(manifest(an_offer("b", {"required": ["n"]})), now=NOW)

    answer = old.post("clone_pipe", {"pipeline_id": number})

    assert list(faults_of(answer)) == [f"runs[{number}].transformers_list[1].context.n"]


@pytest.mark.parametrize("name", ["pipe_update", "clone_pipe"])
def test_an_earlier_pipeline_must_be_named_and_exist(old: Old, name: str) -> None:
    tasks = {"transformers_list": [a_task("a")]} if name == "pipe_update" else {}

    missing = [old.post(name, {"p_id": number, **tasks}) for number in (7, "7", 2**63 - 1)]
    odd: list[Any] = [None, True, -1, "x", 1.0, 2**63, []]
    wrong = [old.post(name, {"p_id": number, **tasks}) for number in odd]
    torn = old.post(name, {"p_id": 1, "pipeline_id": 2, **tasks})

    assert [answer.status_code for answer in missing] == [404] * 3
    assert [list(faults_of(answer)) for answer in wrong] == [["p_id"]] * 7
    assert list(faults_of(torn)) == ["pipeline_id"]
    assert old.post(name, [1]).status_code == 422


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}"])
def test_a_token_is_taken_bare_and_as_a_bearer(token: str, form: str) -> None:
    assert Old(form.format(token)).get("pipe_list").status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "wrong", "Bearer wrong", "Basic YTpi", "\x00"])
@pytest.mark.parametrize(
    ("method", "name"), [("GET", "pipe_list"), ("GET", "trans_list"), ("POST", "pipe_create"), ("POST", "clone_pipe")]
)
def test_nobody_gets_in_without_a_token(sqlite_asha: User, header: str, method: str, name: str) -> None:
    answer = Old(header, enforce_csrf_checks=True).ask(method, name)

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.json()["Success"] is False


@pytest.fixture
def sqlite_asha(sqlite_database: str) -> User:
    return User.objects.create_user("asha")


def test_a_session_writes_only_with_a_csrf_token(asha: User) -> None:
    visitor = browser(enforce_csrf_checks=True)
    visitor.force_login(asha)

    answer = visitor.generic("POST", "/transformer/pipe_create", json.dumps(pipeline("a")).encode())

    assert visitor.get("/transformer/pipe_list").status_code == 200
    assert (answer.status_code, answer.json()["Success"]) == (403, False)


def test_every_refusal_has_the_one_form_and_says_that_it_is_no_success(old: Old) -> None:
    answers = {
        405: old.get("pipe_create"),
        404: old.get("nowhere"),
        413: old.post("pipe_create", "x" * 1024 * 1024),
        422: old.post("pipe_create", pipeline("a", project="nowhere")),
    }

    for status, answer in answers.items():
        document = answer.json()
        assert answer.status_code == status
        assert document["Success"] is False
        assert set(document["error"]) == {"code", "message", "faults"}
    assert answers[405]["Allow"] == "POST"
    assert not Run.objects.exists()
