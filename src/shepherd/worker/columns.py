"""What the columns of a text table are: judged by their values, and never so that a value is lost."""

import importlib
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

#: What stands for a missing value, quoted or not. Most of what pandas takes as such; each one costs time.
MISSING: Final = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"]
#: These decide what a column is; where they are all missing, the whole column does.
_ROWS_TO_JUDGE: Final = 10_000
#: How many columns are judged at once: for each there are a dozen expressions.
_AT_ONCE: Final = 200

# A zero in front says that it is a code, as a postal code; more than 18 digits don't fit into 64 bits.
_INTEGER: Final = r"^[+-]?(0|[1-9]\d{0,17})$"
_NUMBER: Final = r"^[+-]?((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$"
_COMMA: Final = r"^[+-]?(0|[1-9]\d{0,17})(,\d+)?$"
#: "1,234" alone may be a thousand and more: some value must show that the comma isn't that.
_SURELY_COMMA: Final = r",(\d{1,2}|\d{4,})$|^[+-]?0,"
_BOOLEAN: Final = r"^(true|True|TRUE|false|False|FALSE)$"
_DATE: Final = r"^\d{4}-\d{2}-\d{2}$"


class Kind(Enum):
    """What a column is; the value of a time is its format."""

    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL_COMMA = "decimal comma"
    BOOLEAN = "boolean"
    DATE = "%Y-%m-%d"
    TIME = "%Y-%m-%d %H:%M:%S%.f"
    TIME_T = "%Y-%m-%dT%H:%M:%S%.f"
    TIME_UTC = "%Y-%m-%dT%H:%M:%S%.fZ"
    TEXT = "text"

    @property
    def is_converted(self) -> bool:
        """Return whether it is read as text first."""
        return self not in {Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.TEXT}


_TIMES: Final = (Kind.TIME, Kind.TIME_T, Kind.TIME_UTC)


def judge_head(strings: Any, *, has_decimal_comma: bool) -> dict[str, Kind]:
    """Return the kinds of a lazy frame's columns, all of strings, by its first rows."""
    head = strings.head(_ROWS_TO_JUDGE).collect()
    kinds = judge(head.lazy(), head.columns, has_decimal_comma=has_decimal_comma)
    if head.height == _ROWS_TO_JUDGE:
        missing = [name for name in head.columns if head[name].null_count() == head.height]
        kinds |= judge(strings, missing, has_decimal_comma=has_decimal_comma)
    return kinds


def judge(strings: Any, names: Iterable[str], *, has_decimal_comma: bool) -> dict[str, Kind]:
    """Return the kinds of some columns of a lazy frame of strings, by all its rows; holds none of them."""
    wanted = list(names)
    kinds: dict[str, Kind] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        expressions = [expression for index, name in enumerate(part) for expression in _counts(name, index)]
        counted = strings.select(expressions).collect(engine="streaming").row(0, named=True)
        for index, name in enumerate(part):
            kinds[name] = _kind({kind: counted[f"{index}{kind}"] for kind in _COUNTED}, comma=has_decimal_comma)
    return kinds


def read_as(kind: Kind) -> Any:
    """Return the type as which a column's text is parsed at once."""
    pl = importlib.import_module("polars")
    return {Kind.INTEGER: pl.Int64, Kind.NUMBER: pl.Float64, Kind.BOOLEAN: pl.Boolean}.get(kind, pl.String)


def conversion(name: str, kind: Kind) -> Any:
    """Return what makes a column of strings what it is; raises on a value that isn't that, when computed."""
    pl = importlib.import_module("polars")
    column = pl.col(name)
    if kind is Kind.DECIMAL_COMMA:
        return column.str.replace(",", ".", literal=True).cast(pl.Float64)
    if kind is Kind.DATE:
        return column.str.to_date(kind.value)
    time = column.str.to_datetime(kind.value, time_unit="us")
    return time.dt.replace_time_zone("UTC") if kind is Kind.TIME_UTC else time


_COUNTED: Final = ("all", "surely", *Kind)


def _counts(name: str, index: int) -> list[Any]:
    pl = importlib.import_module("polars")
    text = pl.col(name)
    patterns = {
        Kind.INTEGER: _INTEGER,
        Kind.NUMBER: _NUMBER,
        Kind.DECIMAL_COMMA: _COMMA,
        "surely": _SURELY_COMMA,
        Kind.BOOLEAN: _BOOLEAN,
    }
    # A year before 1000 or a day that doesn't exist is text.
    date = text.str.contains(_DATE) & text.str.to_date(Kind.DATE.value, strict=False).is_not_null()
    return [
        text.count().alias(f"{index}all"),
        *(text.str.contains(pattern).sum().alias(f"{index}{kind}") for kind, pattern in patterns.items()),
        date.sum().alias(f"{index}{Kind.DATE}"),
        *(text.str.to_datetime(kind.value, strict=False).count().alias(f"{index}{kind}") for kind in _TIMES),
        pl.lit(0).alias(f"{index}{Kind.TEXT}"),
    ]


def _kind(counted: dict[Any, int], *, comma: bool) -> Kind:
    everything = counted["all"]
    if not everything:
        return Kind.TEXT
    for kind in Kind:
        is_allowed = kind is not Kind.DECIMAL_COMMA or (comma and counted["surely"] > 0)
        if counted[kind] == everything and is_allowed:
            return kind
    return Kind.TEXT
