"""Figures of several rounds: medians, spread, ratios."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": _short(statistics.median(values)), "min": _short(min(values)), "max": _short(max(values))}


def spread(values: Sequence[float], unit: str) -> str:
    """Return `median unit (min to max)`."""
    figures = summary(values)
    return f"{figures['median']:g} {unit} ({figures['min']:g} to {figures['max']:g})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how many times theirs ours is, by medians."""
    return _short(statistics.median(ours) / statistics.median(theirs))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all don't exceed (nearest rank)."""
    ordered = sorted(values)
    return _short(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)])


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def print_last_line(figures: Mapping[str, Any]) -> None:
    print(json.dumps(figures))
