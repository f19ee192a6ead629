"""Contexts with placeholders against what workers announced."""

import json
from typing import Any

import pytest

from shepherd.domain.pipeline import TaskSpec
from shepherd.pipelines.contexts import check_contexts

DATES = {"$result": "bhuvan_get_dates", "pointer": "/dates/0"}

SCHEMA = {
    "type": "object",
    "properties": {
        "date": {"type": "string", "pattern": "^[0-9-]+$"},
        "n": {"type": "integer", "enum": [1, 2]},
        "key": {"type": "string", "minLength": 40},
        "list": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        "either": {"oneOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["date"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "context",
    [
        {"date": DATES},
        {"date": DATES, "n": {"$result": 1}, "key": {"$secret": "K"}, "either": {"$secret": "K"}},
        {"date": "2020", "list": [1, DATES, DATES]},
        {"date": "2020", "either": {"$result": 1}},
        {"$result": 1},
        {"date": {"$literal": "2020"}},
    ],
)
def test_a_placeholder_stands_for_what_the_schema_wants_there(context: dict[str, Any]) -> None:
    assert _faults(context) == {}


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"n": DATES}, "date"),
        ({"date": DATES, "other": DATES}, "other"),
        ({"date": DATES, "n": {"$secret": "K"}}, "n"),
        ({"date": DATES, "n": 3}, "n"),
        ({"date": {"$literal": {"$result": 1}}}, "date"),
        ({"date": DATES, "list": [{"$secret": "K"}]}, "list[0]"),
    ],
)
def test_beside_placeholders_the_schema_counts(context: dict[str, Any], path: str) -> None:
    assert list(_faults(context)) == [f"transformers_list[1].context.{path}"]


def test_a_secret_where_no_text_may_be_is_told_so() -> None:
    faults = _faults({"date": "2020", "n": {"$secret": "K"}})

    assert faults == {"transformers_list[1].context.n": "must be of type integer, is a secret, which is a text"}


def _faults(context: dict[str, Any]) -> dict[str, str]:
    task = TaskSpec(order_no=2, name="wms", context=context, index=1)
    faults, warnings = check_contexts([task], {"wms": [json.dumps(SCHEMA)]})
    assert warnings == []
    return {fault.path: fault.reason for fault in faults}
