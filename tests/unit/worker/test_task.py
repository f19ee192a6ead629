from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
import pytest
from pydantic import BaseModel

from shepherd.errors import InvalidInputError
from shepherd.worker import Worker
from shepherd.worker.task import task_of


@dataclass
class Inner:
    n: int = 0


@dataclass
class Typed:
    columns: list[str]
    inner: Inner = field(default_factory=Inner)


class Loose(TypedDict, total=False):
    year: int


class Modelled(BaseModel):
    year: int


def test_a_function_becomes_an_offer() -> None:
    def drop(context: Typed, data: pl.LazyFrame) -> pl.LazyFrame:
        """Drop columns."""
        return data.drop(context.columns)

    offer = task_of(drop).offer()

    assert offer.name == "drop"
    assert offer.description == "Drop columns."
    assert offer.data == "polars.LazyFrame"
    assert offer.context_schema["properties"]["columns"] == {"type": "array", "items": {"type": "string"}}
    assert offer.context_schema["required"] == ["columns"]
    assert offer.context_schema["$defs"].keys() == {"Inner"}


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Any])
def test_a_plain_context_takes_anything(annotation: Any) -> None:
    def plain(context: Any) -> None: ...

    plain.__annotations__["context"] = annotation

    assert task_of(plain).context.schema == {}
    assert task_of(plain).context.parse({"x": [None]}) == {"x": [None]}


@pytest.mark.parametrize(
    ("annotation", "sent", "path", "reason"),
    [
        (Typed, {}, "", "columns"),
        (Typed, {"columns": ["a", 1]}, "columns[1]", "str"),
        (Typed, {"columns": [], "inner": {"n": "1"}}, "inner.n", "int"),
        (Typed, {"columns": [], "colums": 1}, "colums", "unknown; known are columns, inner"),
        (Loose, {"year": "x"}, "year", "int"),
        (Loose, {"yaer": 1}, "yaer", "unknown"),
        (Modelled, {"year": "x"}, "year", "integer"),
        (Modelled, {}, "year", "required"),
    ],
)
def test_a_wrong_context_is_told_with_its_path(annotation: Any, sent: dict[str, Any], path: str, reason: str) -> None:
    def typed(context: Any) -> None: ...

    typed.__annotations__["context"] = annotation

    with pytest.raises(InvalidInputError) as caught:
        task_of(typed).context.parse(sent)

    assert caught.value.faults[0].path == path
    assert reason in caught.value.faults[0].reason


def test_the_seeds_second_parameter_is_a_path() -> None:
    def seed(context: Any, data_path: Any) -> None: ...
    def named(context: Any, data_path: Path) -> None: ...

    assert task_of(seed).is_by_path
    assert task_of(seed).offer().data == "data_path"
    assert not task_of(named).is_by_path


def _no_parameter() -> None: ...
def _three(context: Any, data: Any, more: Any) -> None: ...
def _keyword(context: Any, *, needed: Any) -> None: ...
async def _coroutine(context: Any) -> None: ...
def _generator(context: Any) -> Any:
    yield context


@pytest.mark.parametrize("function", [_no_parameter, _three, _keyword, _coroutine, _generator])
def test_wrong_parameters_are_refused_with_what_is_allowed(function: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\(context\), \(context, data\) or \(context, data_path\)"):
        task_of(function)


@pytest.mark.parametrize("name", ["skip-column", "1st", "ä", "x" * 101, "<lambda>"])
def test_an_invalid_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidInputError, match="letter or underscore"):
        task_of(lambda context: context, name=name)


def test_a_context_without_a_schema_is_refused() -> None:
    def odd(context: complex) -> None: ...

    with pytest.raises(InvalidInputError, match="dataclass"):
        task_of(odd)


def test_two_tasks_of_one_name_are_refused() -> None:
    worker = Worker()

    @worker.task(name="same")
    def first(context: Any) -> None: ...

    with pytest.raises(InvalidInputError, match="twice"):
        worker.add_task(first, name="same")


def test_the_function_stays_itself() -> None:
    worker = Worker("named")

    @worker.task
    def echo(context: Any) -> Any:
        return context

    assert echo(3) == 3
    assert worker.add_task(echo, name="again") is worker


@pytest.mark.parametrize("name", ["a b", "ä", "x" * 61, "#"])
def test_a_workers_name_is_checked(name: str) -> None:
    with pytest.raises(InvalidInputError, match="letters"):
        Worker(name)


def _patient(context: dict[str, Any]) -> None: ...


def test_a_policy_stands_in_the_offer_as_far_as_it_is_stated() -> None:
    task = task_of(_patient, policy={"retries": 3, "run_timeout": 60})

    assert task.offer().policy == {"retries": 3, "run_timeout": 60}
    assert task_of(_patient).offer().policy == {}


def test_a_policy_that_cannot_be_is_refused_where_the_task_is_defined() -> None:
    worker = Worker()

    with pytest.raises(InvalidInputError, match=r"_patient.*retries: must be an integer") as refusal:
        worker.add_task(_patient, retries=-1, run_timeout=0)

    assert len(refusal.value.faults) == 2
