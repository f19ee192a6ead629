"""Runs in outline, with what their tasks were asked for and returned: what the old endpoints list."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Length, StrIndex
from django.db.models.lookups import GreaterThan

from shepherd.pipelines import sql
from shepherd.pipelines.fields import ExactJSONField
from shepherd.pipelines.models import Run, Task
from shepherd.wire import strict_json
from shepherd.wire.value import ClaimCheck, Inline, parse_value

#: Characters of a result's JSON: a list may show 200 runs of 200 tasks, and a result may have 64 KiB.
_RESULT_LIMIT: Final = 2_000
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")

_TASK_COLUMNS: Final = ("run_id", "number", "order_no", "name", "status", "short_result", "result_size")
_DETAILS: Final = ("context", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutline:
    """A task in outline."""

    number: int
    order_no: int
    name: str
    status: str
    #: Empty where only a list was asked for.
    context: dict[str, Any]
    error: dict[str, Any] | None
    #: None until it has succeeded, and where the result is too long for a list.
    result: Inline | ClaimCheck | None
    is_result_too_long: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A run in outline."""

    number: int
    pipeline_name: str
    project: str
    data_url: str
    status: str
    error: dict[str, Any] | None
    labels: dict[str, Any]
    accepted_at: datetime
    #: In their order.
    tasks: tuple[TaskOutline, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlinePage:
    """Some runs, the newest first."""

    runs: tuple[Outline, ...]
    #: What `before` must be for the next page; None on the last one.
    next_before: int | None


def outlines(
    *, before: int | None, limit: int, label: tuple[str, str] | None = None, has_details: bool = False
) -> OutlinePage:
    """Return the newest runs with a number below `before`, at most `limit`; two queries, however many these are.

    `label` wants only runs that have it, a name and the text of a value: a number and its text are the same.
    `has_details` adds each task's context and error.
    """
    rows = Run.objects.order_by("-number") if label is None else _labelled(*label).order_by("-number")
    if before is not None:
        rows = rows.filter(number__lt=min(before, sql.LARGEST_NUMBER))
    fields = ("number", "pipeline_name", "project", "data_url", "status", "error", "labels", "accepted_at")
    found = list(rows.values(*fields)[: limit + 1])
    runs = found[:limit]
    tasks = _tasks([run["number"] for run in runs], has_details=has_details)
    return OutlinePage(
        runs=tuple(Outline(**run, tasks=tuple(tasks.get(run["number"], ()))) for run in runs),
        next_before=runs[-1]["number"] if len(found) > limit else None,
    )


def _labelled(name: str, value: str) -> QuerySet[Run]:
    # Looked for in the text that is stored: neither database need read JSON then, and SQLite's LIKE would tell no cases
    # apart. Quotes within a string are escaped there, so that no other label can hold this text.
    key = f"{strict_json.dumps(name)}:"
    texts = [f"{key}{strict_json.dumps(value)}"]
    if _INTEGER.fullmatch(value):
        texts += [f"{key}{value},", f"{key}{value}}}"]
    wanted = Q()
    for text in texts:
        wanted |= Q(GreaterThan(StrIndex("labels", Value(text)), 0))
    return Run.objects.filter(wanted)


def _tasks(numbers: Sequence[int], *, has_details: bool) -> dict[int, list[TaskOutline]]:
    is_short = Q(result_size__lte=_RESULT_LIMIT)
    rows = (
        Task.objects.filter(run__in=numbers)
        .annotate(result_size=Length("result"))
        .annotate(short_result=Case(When(is_short, then=F("result")), output_field=ExactJSONField(null=True)))
        .order_by("run_id", "position")
        .values(*_TASK_COLUMNS, *(_DETAILS if has_details else ()))
    )
    tasks: dict[int, list[TaskOutline]] = {}
    for row in rows:
        tasks.setdefault(row["run_id"], []).append(_outline(row))
    return tasks


def _outline(row: Mapping[str, Any]) -> TaskOutline:
    result = row["short_result"]
    return TaskOutline(
        number=row["number"],
        order_no=row["order_no"],
        name=row["name"],
        status=row["status"],
        context=row.get("context", {}),
        error=row.get("error"),
        result=None if result is None else parse_value(result, path="result"),
        is_result_too_long=result is None and row["result_size"] is not None,
    )
