"""What the generic tasks compute, beside what polars or pandas compute of the same rows."""

import math
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from projects.generic_transformations import transformations as t
from shepherd.worker import TaskFailedError

FLIGHTS = pl.LazyFrame(
    {
        "carrier": ["UA", "UA", "B6", "B6", "AA"],
        "origin": ["EWR", "LGA", "EWR", "EWR", "JFK"],
        "dest": ["IAH", "IAH", None, "BQN", "MIA"],
        "dep_delay": [2.0, 4.0, float("nan"), None, -1.0],
        "distance": [1400, 1416, 719, 1576, 1089],
    }
)

EVERY_TASK = [
    (t.skip_column, t.SkipColumn, {"columns": ["plane"]}),
    (t.rename_column, t.RenameColumn, {"rename_dict": {"plane": "tail"}}),
    (t.merge_columns, t.MergeColumns, {"columns": ["origin", "plane"], "output_column": "route"}),
    (t.split_column, t.SplitColumn, {"column": "plane", "new_cols": ["a", "b"]}),
    (t.fill_missing_fields, t.FillMissingFields, {"column": "plane"}),
    (t.anonymize, t.Anonymize, {"column": "plane", "option": "replace_all"}),
    (t.aggregate, t.Aggregate, {"index": "plane", "values": "distance"}),
]


def run(function: Any, context_type: Any, context: dict[str, Any], data: pl.LazyFrame = FLIGHTS) -> pl.DataFrame:
    """Validate the context as a worker does, and compute the result."""
    planned = function(msgspec.convert(context, context_type, strict=True), data)
    assert isinstance(planned, pl.LazyFrame)
    return planned.collect(engine="streaming")


def texts(*values: str | None) -> pl.LazyFrame:
    return pl.LazyFrame({"text": values}, schema={"text": pl.String})


@pytest.mark.parametrize(("function", "context_type", "context"), EVERY_TASK)
def test_a_missing_column_is_an_error_that_names_it_and_lists_those_that_exist(
    function: Any, context_type: Any, context: dict[str, Any]
) -> None:
    with pytest.raises(TaskFailedError) as caught:
        run(function, context_type, context)

    assert caught.value.code == "unknown_column"
    assert caught.value.message == ("no column 'plane'; there are 'carrier', 'origin', 'dest', 'dep_delay', 'distance'")


@pytest.mark.parametrize(("function", "context_type", "context"), EVERY_TASK)
def test_every_task_has_a_description_and_a_schema_with_described_fields(
    function: Any, context_type: Any, context: dict[str, Any]
) -> None:
    schema = msgspec.json.schema(context_type)["$defs"][context_type.__name__]

    assert function.__doc__
    described = {name for name, field in schema["properties"].items() if "description" in field}
    assert described == set(schema["properties"])


@pytest.mark.parametrize("columns", [["carrier"], "carrier"])
def test_skip_column_takes_a_list_or_one_name(columns: Any) -> None:
    assert_frame_equal(run(t.skip_column, t.SkipColumn, {"columns": columns}), FLIGHTS.drop("carrier").collect())


def test_skip_column_with_an_empty_list_changes_nothing() -> None:
    assert_frame_equal(run(t.skip_column, t.SkipColumn, {"columns": []}), FLIGHTS.collect())


def test_rename_column_keeps_the_order_and_may_swap() -> None:
    result = run(t.rename_column, t.RenameColumn, {"rename_dict": {"origin": "dest", "dest": "origin"}})

    assert result.columns == ["carrier", "dest", "origin", "dep_delay", "distance"]
    assert result["dest"].to_list() == ["EWR", "LGA", "EWR", "EWR", "JFK"]


def test_rename_column_refuses_a_name_that_is_taken() -> None:
    with pytest.raises(TaskFailedError, match="'dest' would stand there twice") as caught:
        run(t.rename_column, t.RenameColumn, {"rename_dict": {"origin": "dest"}})

    assert caught.value.code == "duplicate_column"


@pytest.mark.parametrize("drop_flag", ["True", "true", True])
@pytest.mark.parametrize("spelling", ["separator", "sep"])
def test_merge_columns_drops_what_it_joined_if_told_so(drop_flag: Any, spelling: str) -> None:
    context = {"columns": ["origin", "dest"], "output_column": "route", spelling: "-", "drop_flag": drop_flag}

    result = run(t.merge_columns, t.MergeColumns, context)

    assert result.columns == ["carrier", "dep_delay", "distance", "route"]
    assert result["route"].to_list() == ["EWR-IAH", "LGA-IAH", "EWR", "EWR-BQN", "JFK-MIA"]


@pytest.mark.parametrize("drop_flag", [{}, {"drop_flag": "False"}, {"drop_flag": False}, {"drop_flag": ""}])
def test_merge_columns_keeps_what_it_joined_otherwise(drop_flag: dict[str, Any]) -> None:
    context = {"columns": ["carrier", "distance"], "output_column": "label", **drop_flag}

    result = run(t.merge_columns, t.MergeColumns, context)

    assert result.columns == [*FLIGHTS.collect_schema().names(), "label"]
    assert result["label"][0] == "UA 1400"


def test_merge_columns_may_write_over_a_joined_column_but_over_no_other() -> None:
    over_joined = {"columns": ["origin", "dest"], "output_column": "dest", "separator": ""}
    over_other = {"columns": ["origin", "dest"], "output_column": "carrier"}

    assert run(t.merge_columns, t.MergeColumns, over_joined)["dest"][0] == "EWRIAH"
    with pytest.raises(TaskFailedError, match="'carrier'"):
        run(t.merge_columns, t.MergeColumns, over_other)


@pytest.mark.parametrize("spelling", ["sep", "separator"])
def test_split_column_gives_the_rest_to_the_last_column(spelling: str) -> None:
    context = {"column": "text", "new_cols": ["first", "second"], spelling: "."}

    result = run(t.split_column, t.SplitColumn, context, texts("a.b.c", "a", None, ""))

    assert result.columns == ["text", "first", "second"]
    assert result["first"].to_list() == ["a", "a", None, ""]
    assert result["second"].to_list() == ["b.c", None, None, None]


def test_split_column_agrees_with_pandas() -> None:
    values = ["a-b", "c-d", "e-f"]

    result = run(t.split_column, t.SplitColumn, {"column": "text", "new_cols": ["x", "y"], "sep": "-"}, texts(*values))

    expected = pd.Series(values).str.split("-", expand=True)
    assert result["x"].to_list() == expected[0].to_list()
    assert result["y"].to_list() == expected[1].to_list()


def test_split_column_can_leave_out_or_write_over_the_split_one() -> None:
    dropped = {"column": "text", "new_cols": ["x", "y"], "sep": "-", "drop_flag": "True"}
    written_over = {"column": "text", "new_cols": ["text", "y"], "sep": "-"}

    assert run(t.split_column, t.SplitColumn, dropped, texts("a-b")).columns == ["x", "y"]
    assert run(t.split_column, t.SplitColumn, written_over, texts("a-b")).row(0) == ("a", "b")


def test_split_column_refuses_an_empty_separator() -> None:
    with pytest.raises(TaskFailedError, match="sep: must not be empty"):
        run(t.split_column, t.SplitColumn, {"column": "text", "new_cols": ["x"], "sep": ""}, texts("a"))


def test_fill_missing_fields_takes_the_value_above_as_pandas_does() -> None:
    values = [None, 1.0, float("nan"), None, 4.0]

    result = run(
        t.fill_missing_fields, t.FillMissingFields, {"column": "number"}, pl.LazyFrame({"number": values}, strict=False)
    )

    expected = [None if math.isnan(value) else value for value in pd.Series(values).ffill()]
    assert result["number"].to_list() == expected


def test_fill_missing_fields_takes_a_given_value() -> None:
    result = run(t.fill_missing_fields, t.FillMissingFields, {"column": ["dest"], "value": "unknown"})

    assert result["dest"].to_list() == ["IAH", "IAH", "unknown", "BQN", "MIA"]


def test_anonymize_replaces_a_text_exactly_as_it_stands() -> None:
    context = {"column": "text", "to_replace": "a.", "replace_val": "$1"}

    result = run(t.anonymize, t.Anonymize, context, texts("a.b a.", "ab", "A.", None))

    assert result["text"].to_list() == ["$1b $1", "ab", "A.", None]


def test_anonymize_replaces_in_numbers_too() -> None:
    result = run(t.anonymize, t.Anonymize, {"column": "distance", "to_replace": 14, "replace_val": "xx"})

    assert result["distance"].to_list() == ["xx00", "xx16", "719", "1576", "1089"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"option": "replace_all"}, ["*****", "**", None, ""]),
        ({"option": "replace_all", "special_char": "$"}, ["$$$$$", "$$", None, ""]),
        ({"option": "replace_all", "special_char": "\\"}, ["\\" * 5, "\\" * 2, None, ""]),
        ({"option": "replace_nth", "special_char": "#", "n": 1}, ["#12ß\n", "#é", None, ""]),
        ({"option": "replace_nth", "special_char": "#", "n": "3"}, ["N1#ß\n", "Né", None, ""]),
        ({"option": "retain_first_n", "special_char": "#", "n": 2}, ["N1###", "Né", None, ""]),
        ({"option": "retain_first_n", "special_char": "#", "n": 0}, ["#####", "##", None, ""]),
    ],
)
def test_anonymize_hides_characters_one_by_one(options: dict[str, Any], expected: list[str | None]) -> None:
    result = run(t.anonymize, t.Anonymize, {"column": "text", **options}, texts("N12ß\n", "Né", None, ""))

    assert result["text"].to_list() == expected


@pytest.mark.parametrize("spelling", [{"special_char": "random"}, {"random": True}, {"random": "True"}])
def test_anonymize_draws_random_letters_of_the_same_length(spelling: dict[str, Any]) -> None:
    context = {"column": "text", "option": "retain_first_n", "n": 1, **spelling}
    value = "N" + "\N{SNOWMAN}" * 40

    result = run(t.anonymize, t.Anonymize, context, texts(value, value, None, ""))["text"].to_list()

    assert result[2:] == [None, ""]
    assert all(len(text) == 41 and text[0] == "N" and text[1:].isalnum() for text in result[:2])
    assert result[0] != result[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "either to_replace and replace_val, or option"),
        ({"to_replace": "x"}, "either to_replace and replace_val, or option"),
        ({"option": "replace_nth"}, "n: must be given"),
        ({"option": "replace_nth", "n": 0}, "n: counts from 1"),
    ],
)
def test_anonymize_says_what_its_context_lacks(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskFailedError, match=reason) as caught:
        run(t.anonymize, t.Anonymize, {"column": "text", **options}, texts("x"))

    assert caught.value.code == "invalid_context"


@given(st.lists(st.text() | st.none()), st.integers(0, 5))
def test_anonymize_never_changes_a_length_and_keeps_what_it_retains(values: list[str | None], n: int) -> None:
    hidden = run(t.anonymize, t.Anonymize, {"column": "text", "option": "retain_first_n", "n": n}, texts(*values))[
        "text"
    ].to_list()

    assert hidden == [None if value is None else value[:n] + "*" * len(value[n:]) for value in values]


@pytest.mark.parametrize("columns", [{}, {"columns": []}, {"columns": ""}, {"columns": None}])
def test_aggregate_without_columns_gives_one_row_an_index_value_with_the_mean(columns: dict[str, Any]) -> None:
    result = run(t.aggregate, t.Aggregate, {"index": "carrier", "values": ["dep_delay", "distance"], **columns})

    expected = pl.DataFrame(
        {"carrier": ["AA", "B6", "UA"], "dep_delay": [-1.0, None, 3.0], "distance": [1089.0, 1147.5, 1408.0]}
    )
    assert_frame_equal(result, expected)


def test_aggregate_with_columns_agrees_with_the_pivot_table_of_pandas() -> None:
    result = run(t.aggregate, t.Aggregate, {"index": ["carrier"], "columns": "origin", "values": "distance"})

    expected = FLIGHTS.collect().to_pandas().pivot_table(index="carrier", columns="origin", values="distance")
    assert_frame_equal(result, pl.from_pandas(expected.reset_index()))


def test_aggregate_names_the_columns_after_several_values_and_several_columns() -> None:
    several_values = {"index": "carrier", "columns": ["origin"], "values": ["dep_delay", "distance"]}
    several_columns = {"index": "carrier", "columns": ["origin", "dest"], "values": ["distance"]}

    assert run(t.aggregate, t.Aggregate, several_values).columns == [
        "carrier",
        "dep_delay_EWR",
        "dep_delay_JFK",
        "dep_delay_LGA",
        "distance_EWR",
        "distance_JFK",
        "distance_LGA",
    ]
    assert run(t.aggregate, t.Aggregate, several_columns).columns == [
        "carrier",
        "EWR_BQN",
        "EWR_IAH",
        "EWR_null",
        "JFK_MIA",
        "LGA_IAH",
    ]


def test_aggregate_refuses_to_take_the_mean_of_text() -> None:
    with pytest.raises(TaskFailedError, match="column 'dest' holds String") as caught:
        run(t.aggregate, t.Aggregate, {"index": "carrier", "values": "dest"})

    assert caught.value.code == "not_a_number"
