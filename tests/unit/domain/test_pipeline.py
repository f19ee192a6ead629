"""What `parse_pipeline` takes, and what it says of what it doesn't."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shepherd.domain.pipeline import PipelineSpec, parse_pipeline
from shepherd.errors import InvalidInputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
NEARLY_TASK = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON | st.sampled_from(["sentinel", "a-b", "", "x" * 101]),
        "order_no": JSON | st.integers(-3, 3),
        "context": JSON | st.just({}),
        "extra": JSON,
    },
)
NEARLY_PIPELINE = st.fixed_dictionaries(
    {},
    optional={
        "pipeline_name": JSON | st.just("p"),
        "data_url": JSON | st.sampled_from(["", "http://[", "http://a/b", "ftp://a"]),
        "project": JSON | st.sampled_from(["ids-drr", "ids_drr", "../etc", "a" * 101]),
        "transformers_list": JSON | st.lists(JSON | NEARLY_TASK, max_size=4),
        "pipelineName": JSON,
    },
)


def sentinel_pipeline(**changes: Any) -> dict[str, Any]:
    document = {
        "pipeline_name": "sentinel_pipeline",
        "data_url": "",
        "project": "ids-drr",
        "transformers_list": [
            {"name": "sentinel", "order_no": 1, "context": {"date_start": "2023-05-01", "date_end": "2023-06-01"}},
            {"name": "sentinel_upload_to_s3", "order_no": 2, "context": {}},
        ],
    }
    return {**document, **changes}


def faults_of(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_pipeline(document)
    return {fault.path: fault.reason for fault in caught.value.faults}


def task(**changes: Any) -> dict[str, Any]:
    return {"name": "sentinel", "order_no": 1, "context": {}, **changes}


@pytest.mark.parametrize("rows", [0, -1, 1_000_001, True, 1.5, "1000"])
def test_rows_of_a_sample_that_are_no_such_number_are_named(rows: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_pipeline(sentinel_pipeline(sample_rows=rows))

    assert [fault.path for fault in caught.value.faults] == ["sample_rows"]


def test_the_sample_request_is_a_pipeline() -> None:
    spec = parse_pipeline(sentinel_pipeline())

    assert (spec.pipeline_name, spec.data_url, spec.project) == ("sentinel_pipeline", "", "ids-drr")
    assert [(step.order_no, step.name) for step in spec.tasks] == [(1, "sentinel"), (2, "sentinel_upload_to_s3")]
    assert spec.tasks[0].context == {"date_start": "2023-05-01", "date_end": "2023-06-01"}


def test_tasks_are_ordered_by_number_and_equal_numbers_keep_their_order() -> None:
    tasks = [task(name="c", order_no=2), task(name="a", order_no=-1), task(name="d", order_no=2), task(name="b")]

    spec = parse_pipeline(sentinel_pipeline(transformers_list=tasks))

    assert [(step.name, step.index) for step in spec.tasks] == [("a", 1), ("b", 3), ("c", 0), ("d", 2)]


def test_a_project_is_stored_with_hyphens() -> None:
    assert parse_pipeline(sentinel_pipeline(project="ids_drr")).project == "ids-drr"


def test_data_url_and_context_may_be_left_out() -> None:
    document = sentinel_pipeline(transformers_list=[{"name": "a", "order_no": 1}])
    del document["data_url"]

    spec = parse_pipeline(document)

    assert spec.data_url == ""
    assert spec.tasks[0].context == {}


@pytest.mark.parametrize("order_no", ["1", 1.0, True, None, [1], {}])
def test_an_order_no_that_is_no_integer_is_refused_by_its_path(order_no: Any) -> None:
    faults = faults_of(sentinel_pipeline(transformers_list=[task(order_no=order_no)]))

    assert faults == {"transformers_list[0].order_no": "must be an integer"}


def test_an_order_no_that_no_column_holds_is_refused() -> None:
    assert "transformers_list[0].order_no" in faults_of(sentinel_pipeline(transformers_list=[task(order_no=10**4000)]))


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a b", "a\n", "ä", "x" * 101, "../a", "a\x00"])
def test_a_task_name_outside_the_grammar_is_refused(name: str) -> None:
    faults = faults_of(sentinel_pipeline(transformers_list=[task(), task(name=name)]))

    assert list(faults) == ["transformers_list[1].name"]


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\x00", "x" * 201, "a\u2028b", "\ud800", None, 7])
def test_a_pipeline_name_must_be_something_to_read(name: Any) -> None:
    assert list(faults_of(sentinel_pipeline(pipeline_name=name))) == ["pipeline_name"]


@pytest.mark.parametrize("name", ["x" * 200, "Überschwemmung 洪水", "a'b\"c<script>", "👩‍🌾"])
def test_a_pipeline_name_may_be_in_any_script(name: str) -> None:
    assert parse_pipeline(sentinel_pipeline(pipeline_name=name)).pipeline_name == name


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "gopher://a/b",
        "s3://",
        "s3://a",
        "file:",
        "//a",
        "a",
        "http://",
        "http:// a",
        "http://a b",
        "http://a:x/",
        None,
        1,
    ],
)
def test_a_data_url_of_another_form_is_refused(url: Any) -> None:
    assert list(faults_of(sentinel_pipeline(data_url=url))) == ["data_url"]


@pytest.mark.parametrize(
    "url", ["", "http://a", "HTTPS://a.b:8080/c?d=e#f", "http://[::1]:80/x", "http://münchen.de/ü"]
)
def test_a_data_url_is_an_http_address_or_empty(url: str) -> None:
    assert parse_pipeline(sentinel_pipeline(data_url=url)).data_url == url


@pytest.mark.parametrize("project", ["", "../etc", "a/b", "-a", "a" * 101, ".", None])
def test_a_project_outside_the_grammar_is_refused(project: Any) -> None:
    assert list(faults_of(sentinel_pipeline(project=project))) == ["project"]


def test_200_tasks_are_taken_and_201_are_not() -> None:
    assert len(parse_pipeline(sentinel_pipeline(transformers_list=[task()] * 200)).tasks) == 200
    assert faults_of(sentinel_pipeline(transformers_list=[task()] * 201)) == {
        "transformers_list": "must name at most 200 tasks, names 201"
    }


@pytest.mark.parametrize("tasks", [[], {}, None, "sentinel"])
def test_a_list_without_tasks_is_refused(tasks: Any) -> None:
    assert list(faults_of(sentinel_pipeline(transformers_list=tasks))) == ["transformers_list"]


def test_every_fault_is_told_at_once() -> None:
    document = {"pipelineName": "a", "transformers_list": [None, {"name": 1, "order_no": "1", "context": [], "x": 1}]}

    assert list(faults_of(document)) == [
        "pipelineName",
        "pipeline_name",
        "project",
        "transformers_list[0]",
        "transformers_list[1].x",
        "transformers_list[1].name",
        "transformers_list[1].order_no",
        "transformers_list[1].context",
    ]


def test_the_faults_of_a_hopeless_document_are_counted_not_listed() -> None:
    faults = faults_of(sentinel_pipeline(**{f"key{n}": 1 for n in range(5000)}))

    assert len(faults) == 101
    assert faults[""] == "has 4900 more faults"


@given(JSON | NEARLY_PIPELINE)
def test_any_document_is_a_pipeline_or_is_refused_with_reasons(document: Any) -> None:
    outcome = outcome_of(document)

    assert outcome.tasks if isinstance(outcome, PipelineSpec) else all(fault.reason for fault in outcome.faults)


def outcome_of(document: Any) -> PipelineSpec | InvalidInputError:
    try:
        return parse_pipeline(document)
    except InvalidInputError as error:
        return error
