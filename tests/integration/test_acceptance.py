"""From a pipeline to rows, on both databases."""

import threading
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shepherd.domain.pipeline import parse_pipeline
from shepherd.errors import ConflictError, InvalidInputError
from shepherd.pipelines import queries, services
from shepherd.pipelines.models import Run, StatusChange, Task
from shepherd.pipelines.projects import known_projects
from tests.support.web import NOW, CountingBell, an_offer, later, manifest, pipeline

SKIP_COLUMN = {
    "type": "object",
    "properties": {"columns": {"type": "array", "items": {"type": "string"}}},
    "required": ["columns"],
    "additionalProperties": False,
}


def submit(document: dict[str, Any], by: User, **more: Any) -> services.Accepted:
    return services.accept(parse_pipeline(document), by=by, now=more.pop("now", NOW), **more)


def with_context(context: Any, *, name: str = "skip_column") -> dict[str, Any]:
    return pipeline(transformers_list=[{"name": name, "order_no": 1, "context": context}])


def faults_of(document: dict[str, Any], by: User) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        submit(document, by)
    return {fault.path: fault.reason for fault in caught.value.faults}


def test_an_accepted_pipeline_is_a_run_with_its_tasks_and_its_history(asha: User, bell: CountingBell) -> None:
    accepted = submit(pipeline("sentinel", "sentinel_upload_to_s3"), asha)

    run = Run.objects.get()
    assert run == accepted.run
    assert (run.status, run.project, run.data, run.accepted_at) == ("accepted", "ids-drr", None, NOW)
    assert list(run.tasks.order_by("position").values_list("position", "order_no", "name", "status")) == [
        (0, 1, "sentinel", "pending"),
        (1, 2, "sentinel_upload_to_s3", "pending"),
    ]
    change = StatusChange.objects.get()
    assert (change.task, change.from_status, change.to_status, change.by) == (None, "", "accepted", "asha")
    assert bell.rings == 1


def test_a_context_is_kept_exactly_as_it_was_sent(asha: User) -> None:
    context = {"z": True, "a": None, "it's": "\"quoted\" 'n' \u0000 ünï 洪水 \U0001f33e", "n": [[1, [2.5, {}]], 10**40]}

    submit(with_context(context), asha)

    stored = Task.objects.get().context
    assert stored == context
    assert list(stored) == list(context)


def test_200_tasks_are_stored_with_few_queries(asha: User) -> None:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        submit(pipeline(*["sentinel"] * 200), asha)

    assert Task.objects.count() == 200
    assert len(captured) < 20


def test_an_unknown_project_is_refused_with_those_that_exist(asha: User, bell: CountingBell) -> None:
    faults = faults_of(pipeline("sentinel", project="d4d"), asha)

    assert faults == {
        "project": "has no folder among the server's projects; these are there: generic-transformations, ids-drr"
    }
    assert not Run.objects.exists()
    assert bell.rings == 0


def test_two_folders_spelled_alike_are_a_fault_of_that_project_only(projects_folder: Path, asha: User) -> None:
    (projects_folder / "ids-drr" / "workers").mkdir(parents=True)

    faults = faults_of(pipeline("sentinel", project="ids-drr"), asha)
    submit(pipeline("sentinel", project="generic-transformations"), asha)

    assert faults.keys() == {"project"}
    assert f"{projects_folder / 'ids-drr'} and {projects_folder / 'ids_drr'} are both the project" in faults["project"]


def test_folders_without_a_flow_or_workers_are_no_projects(projects_folder: Path) -> None:
    (projects_folder / "__pycache__").mkdir()
    (projects_folder / "notes").mkdir()
    (projects_folder / "README").touch()

    assert list(known_projects(projects_folder)) == ["generic-transformations", "ids-drr"]


def test_a_name_that_nobody_ever_announced_is_accepted_with_a_warning(asha: User) -> None:
    services.announce(manifest("sentinel"), now=NOW)

    accepted = submit(pipeline("sentinel", "unheard_of"), asha)

    [warning] = accepted.warnings
    assert warning.path == "transformers_list[1].name"
    assert "no worker has ever announced 'unheard_of'" in warning.reason


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"columns": [7]}, "transformers_list[0].context.columns[0]"),
        ({"columns": "a"}, "transformers_list[0].context.columns"),
        ({}, "transformers_list[0].context.columns"),
        ({"columns": [], "colums": []}, "transformers_list[0].context.colums"),
    ],
)
def test_a_context_that_breaks_the_announced_schema_is_refused_by_its_path(
    asha: User, context: dict[str, Any], path: str
) -> None:
    services.announce(manifest(an_offer("skip_column", SKIP_COLUMN)), now=NOW)

    assert list(faults_of(with_context(context), asha)) == [path]
    assert not Run.objects.exists()


def test_a_path_names_the_place_in_the_list_as_sent(asha: User) -> None:
    services.announce(manifest(an_offer("skip_column", SKIP_COLUMN)), now=NOW)
    tasks = [{"name": "skip_column", "order_no": 9, "context": {"columns": 1}}, {"name": "sentinel", "order_no": 1}]

    assert list(faults_of(pipeline(transformers_list=tasks), asha)) == ["transformers_list[0].context.columns"]


def test_what_any_live_manifest_accepts_is_accepted(asha: User) -> None:
    newer = {**SKIP_COLUMN, "properties": {"names": {"type": "array"}}, "required": ["names"]}
    services.announce(manifest(an_offer("skip_column", SKIP_COLUMN), worker="old"), now=NOW)
    services.announce(manifest(an_offer("skip_column", newer), worker="new"), now=later(1))

    assert submit(with_context({"columns": ["a"]}), asha, now=later(2)).is_new
    assert submit(with_context({"names": ["a"]}), asha, now=later(2)).is_new
    with pytest.raises(InvalidInputError, match="names: is missing"):
        submit(with_context({}), asha, now=later(2))


def test_a_worker_that_is_gone_no_longer_counts_beside_a_live_one(asha: User) -> None:
    newer = {**SKIP_COLUMN, "properties": {"names": {"type": "array"}}, "required": ["names"]}
    services.announce(manifest(an_offer("skip_column", SKIP_COLUMN), worker="old"), now=NOW)
    services.announce(manifest(an_offer("skip_column", newer), worker="new"), now=later(600))

    with pytest.raises(InvalidInputError):
        submit(with_context({"columns": ["a"]}), asha, now=later(601))


def test_the_newest_schema_counts_when_every_worker_is_gone(asha: User) -> None:
    services.announce(manifest(an_offer("skip_column", SKIP_COLUMN), state="stopped"), now=NOW)

    with pytest.raises(InvalidInputError):
        submit(with_context({}), asha, now=later(6000))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 7},
        {"$ref": "http://127.0.0.1:1/never-fetched.json"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
        {"properties": {"columns": {"pattern": "("}}},
        {"properties": {"columns": {"pattern": "(?=a)"}}},
        {"patternProperties": {"(a+)+$": {}}},
        {"multipleOf": 0},
        {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 3} for n in range(40)}, "$ref": "#/$defs/d0"},
        {"description": "x" * 70_000},
    ],
    ids=lambda schema: next(iter(schema)),
)
def test_a_schema_that_cannot_be_used_keeps_nobody_out(asha: User, schema: dict[str, Any]) -> None:
    services.announce(manifest(an_offer("skip_column", schema)), now=NOW)

    accepted = submit(with_context({"columns": "a"}), asha)

    [warning] = accepted.warnings
    assert warning.path == "transformers_list[0].context"
    assert "was not checked" in warning.reason


@pytest.mark.timeout(20)
def test_a_pattern_that_backtracks_without_end_is_matched_in_no_time(asha: User) -> None:
    services.announce(manifest(an_offer("skip_column", {"properties": {"a": {"pattern": "^(a+)+$"}}})), now=NOW)

    assert list(faults_of(with_context({"a": "a" * 50_000 + "b"}), asha)) == ["transformers_list[0].context.a"]
    assert submit(with_context({"a": "a" * 50_000}), asha).warnings == ()


def test_the_same_key_with_the_same_body_is_the_first_run(asha: User, bell: CountingBell) -> None:
    first = submit(pipeline("sentinel"), asha, idempotency_key="k", body_sha256="1")
    second = submit(pipeline("sentinel"), asha, idempotency_key="k", body_sha256="1")

    assert (first.is_new, second.is_new) == (True, False)
    assert first.run == second.run
    assert Run.objects.count() == 1
    assert bell.rings == 1


def test_the_same_key_with_another_body_is_a_conflict(asha: User) -> None:
    submit(pipeline("sentinel"), asha, idempotency_key="k", body_sha256="1")

    with pytest.raises(ConflictError):
        submit(pipeline("other"), asha, idempotency_key="k", body_sha256="2")


def test_a_key_belongs_to_its_caller(asha: User) -> None:
    ben = User.objects.create_user("ben")
    submit(pipeline("sentinel"), asha, idempotency_key="k", body_sha256="1")

    assert submit(pipeline("sentinel"), ben, idempotency_key="k", body_sha256="2").is_new


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\nb"])
def test_a_key_that_cannot_be_kept_is_refused(asha: User, key: str) -> None:
    with pytest.raises(InvalidInputError, match="Idempotency-Key"):
        submit(pipeline("sentinel"), asha, idempotency_key=key)


def test_of_eight_calls_with_one_key_at_once_one_makes_the_run(asha: User) -> None:
    barrier = threading.Barrier(8)
    answers: list[services.Accepted] = []

    def call() -> None:
        barrier.wait()
        answers.append(submit(pipeline("sentinel"), asha, idempotency_key="k", body_sha256="1"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.is_new for answer in answers].count(True) == 1
    assert len({answer.run.number for answer in answers}) == 1
    assert len(answers) == 8
    assert Run.objects.count() == 1


def test_numbers_follow_the_order_of_acceptance(asha: User) -> None:
    numbers = [submit(pipeline("sentinel"), asha).run.number for _ in range(3)]

    page = queries.list_runs(queries.RunFilter(), before=None, limit=10, now=NOW)

    assert [summary.run.number for summary in page.runs] == sorted(numbers, reverse=True)
