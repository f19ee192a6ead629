"""What may stand in a context in place of a value."""

from typing import Any

import pytest

from shepherd.domain.pipeline import TaskSpec
from shepherd.domain.placeholders import (
    Literal,
    Placeholder,
    ResultReference,
    SecretReference,
    find_placeholders,
    pointed_at,
    replaced,
    shielded,
)
from shepherd.domain.references import Step, reference_faults
from shepherd.errors import Fault

STEPS = [Step(0, 1, "scrape"), Step(1, 2, "clean"), Step(2, 3, "clean"), Step(3, 3, "upload")]


def test_every_placeholder_is_found_with_its_path() -> None:
    context = {
        "dates": [{"$result": "scrape", "pointer": "/dates/0"}, "x"],
        "key": {"$secret": "API_KEY"},
        "n": {"$result": 2},
    }

    assert list(find_placeholders(context, path="context")) == [
        ("context.dates[0]", ResultReference("scrape", "/dates/0")),
        ("context.key", SecretReference("API_KEY")),
        ("context.n", ResultReference(2)),
    ]


def test_nothing_within_a_literal_is_looked_at() -> None:
    inner = {"$secret": "NAME", "$literal": [{"$result": "x"}]}

    assert list(find_placeholders({"a": {"$literal": inner}}, path="")) == [("a", Literal(inner))]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"$result": "a-b"}, "c.$result"),
        ({"$result": True}, "c.$result"),
        ({"$result": None}, "c.$result"),
        ({"$result": "a", "pointer": "dates"}, "c.pointer"),
        ({"$result": "a", "pointer": "/a~2"}, "c.pointer"),
        ({"$result": "a", "default": 1}, "c"),
        ({"$secret": "../etc/passwd"}, "c.$secret"),
        ({"$secret": "A\0"}, "c.$secret"),
        ({"$secret": "A" * 101}, "c.$secret"),
        ({"$secret": "A", "$result": "b"}, "c"),
        ({"$literal": 1, "a": 2}, "c"),
    ],
)
def test_a_placeholder_that_cannot_be_understood_is_told_by_its_path(value: Any, path: str) -> None:
    [(found_at, found)] = find_placeholders(value, path="c")

    assert found_at == "c"
    assert isinstance(found, Fault)
    assert found.path == path


def test_replacing_copies_only_what_changes() -> None:
    context = {"a": {"b": [1, {"$secret": "S"}]}, "c": {"d": 1}, "keep": {"$result": "x"}}

    def replace(placeholder: Placeholder, path: str) -> Any:
        return path if isinstance(placeholder, SecretReference) else placeholder

    after = replaced(context, replace)

    assert after == {"a": {"b": [1, "a.b[1]"]}, "c": {"d": 1}, "keep": {"$result": "x"}}
    assert after["c"] is context["c"]
    assert after["keep"] is context["keep"]
    assert context["a"]["b"][1] == {"$secret": "S"}  # type: ignore[index]


def test_what_looks_like_a_placeholder_is_shielded_and_anything_else_stays_as_it_is() -> None:
    assert shielded({"rows": [{"$secret": "KEY"}]}) == {"$literal": {"rows": [{"$secret": "KEY"}]}}
    assert shielded({"rows": [1, "$secret"]}) == {"rows": [1, "$secret"]}


def test_a_pointer_finds_its_part() -> None:
    document = {"dates": ["d0", "d1"], "a/b": {"m~n": 7}, "": 0}

    assert pointed_at(document, "") is document
    assert pointed_at(document, "/dates/1") == "d1"
    assert pointed_at(document, "/a~1b/m~0n") == 7
    assert pointed_at(document, "/") == 0


@pytest.mark.parametrize("pointer", ["/none", "/dates/2", "/dates/-", "/dates/01", "/dates/x", "/dates/0/0"])
def test_a_pointer_that_leads_nowhere_says_where_it_ended(pointer: str) -> None:
    with pytest.raises(LookupError, match="leads nowhere"):
        pointed_at({"dates": ["d0", "d1"]}, pointer)


@pytest.mark.parametrize(
    ("position", "reference", "reason"),
    [
        (1, "scrape", None),
        (2, "clean", None),
        (3, "clean", "2 tasks before this one"),
        (3, 2, None),
        (3, 3, None),
        (2, 3, "comes later"),
        (0, "clean", "comes later"),
        (0, "scrape", "this task itself"),
        (1, "upload", "comes later"),
        (1, "nowhere", "neither the name nor the order_no"),
        (1, 9, "neither the name nor the order_no"),
    ],
)
def test_a_reference_means_one_earlier_task_or_is_refused(
    position: int, reference: str | int, reason: str | None
) -> None:
    context = {"a": [{"$result": reference}]}
    task = TaskSpec(order_no=1, name="t", context=context, index=position)

    faults = reference_faults([(position, task)], steps=STEPS)

    assert [fault.path for fault in faults] == (
        [f"transformers_list[{position}].context.a[0].$result"] if reason else []
    )
    assert all(reason in fault.reason for fault in faults if reason)


def test_a_whole_context_may_be_a_result_but_no_secret() -> None:
    tasks = [
        TaskSpec(order_no=1, name="a", context={"$secret": "KEY"}, index=0),
        TaskSpec(order_no=2, name="b", context={"$result": 1}, index=1),
    ]

    faults = reference_faults(enumerate(tasks), steps=[Step(0, 1, "a"), Step(1, 2, "b")])

    assert [fault.path for fault in faults] == ["transformers_list[0].context"]
