"""How times, sizes and values look on a page."""

import json
from datetime import datetime
from typing import Any, Final, Protocol

from django import template

from shepherd.pipelines.models import Run, Task

register = template.Library()

_PRETTY_LIMIT: Final = 20_000
_PREVIEW_LIMIT: Final = 120
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


class Timed(Protocol):
    started_at: datetime | None
    finished_at: datetime | None


@register.filter
def took(thing: Timed, now: datetime) -> str:
    """Return how long a run, task or attempt took, or has been running; empty before its start."""
    if thing.started_at is None:
        return ""
    without_s = thing.stood_still_s if isinstance(thing, Run) else 0.0
    return duration(((thing.finished_at or now) - thing.started_at).total_seconds() - without_s)


def duration(seconds: float) -> str:
    """Return a duration with as much detail as people want: `0.25 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{max(seconds, 0):.2f} s"
    rest = int(seconds)
    if rest < 60:
        return f"{rest} s"
    for index, (size, unit) in enumerate(_UNITS):
        if rest >= size:
            smaller, smaller_unit = _UNITS[index + 1] if index + 1 < len(_UNITS) else (1.0, "s")
            return f"{int(rest // size)} {unit} {int(rest % size // smaller)} {smaller_unit}"
    return f"{rest} s"


@register.filter
def ago(at: datetime, now: datetime) -> str:
    seconds = int((now - at).total_seconds())
    if seconds < 5:
        return "just now"
    if seconds < 60:
        return f"{seconds} s ago"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return f"{int(seconds // size)} {unit} ago"


@register.filter
def preview(value: Any) -> str:
    """Return the beginning of JSON in one line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _PREVIEW_LIMIT else f"{text[:_PREVIEW_LIMIT]}…"


@register.filter
def pretty(value: Any) -> str:
    """Return JSON to read; what would be too long for a page is cut, and says so."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return (
        text if len(text) <= _PRETTY_LIMIT else f"{text[:_PRETTY_LIMIT]}\n… {len(text) - _PRETTY_LIMIT} more characters"
    )


@register.filter
def editable(value: Any) -> str:
    """Return the whole of a JSON value, to be edited."""
    return json.dumps(value, ensure_ascii=False, indent=2)


@register.filter
def limits(task: Task) -> str:
    """Return what a task's policy says beyond the defaults, in one line."""
    return ", ".join(f"{name} {_limit(value)}" for name, value in task.policy.items())


def _limit(value: Any) -> str:
    return "none" if value is None else f"{value:g}"


@register.filter
def thousands(count: Any) -> str:
    """Return a number with commas between its thousands: `3,367,760`."""
    return f"{count:,}" if isinstance(count, int) else ""


@register.filter
def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@register.filter
def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    for limit, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"
