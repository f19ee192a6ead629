"""What the columns of a text table are: judged by their values, and never so that a value is lost."""

import functools
import importlib
import operator
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

#: What stands for a missing value, quoted or not. Most of what pandas takes as such; each one costs time.
MISSING: Final = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"]
#: The one that costs no time to look for, beside the empty field, for files in which no other stands.
USUAL_MISSING: Final = "NA"
#: These decide what a column is; where they are all missing, the whole column does.
_ROWS_TO_JUDGE: Final = 10_000
#: How many columns are judged at once: for each there are a dozen expressions.
_AT_ONCE: Final = 200

_DIGITS: Final = 18
LARGEST: Final = 10**_DIGITS - 1
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
        return self not in {Kind.BOOLEAN, Kind.TEXT}


_TIMES: Final = (Kind.TIME, Kind.TIME_T, Kind.TIME_UTC)


def judge_head(strings: Any, *, has_decimal_comma: bool) -> tuple[dict[str, Kind], bool]:
    """Return the kinds of a lazy frame's columns, all of strings, by its first rows; and whether these are all rows."""
    head = strings.head(_ROWS_TO_JUDGE).collect()
    kinds = judge(head.lazy(), head.columns, has_decimal_comma=has_decimal_comma)
    is_all = head.height < _ROWS_TO_JUDGE
    if not is_all:
        missing = [name for name in head.columns if head[name].null_count() == head.height]
        kinds |= judge(strings, missing, has_decimal_comma=has_decimal_comma)
    return kinds, is_all


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


def read_as(kind: Kind, *, is_parsed: bool) -> Any:
    """Return the type as which a column's text is read, numbers as such where `is_parsed`."""
    pl = importlib.import_module("polars")
    numbers = {Kind.INTEGER: pl.Int64, Kind.NUMBER: pl.Float64} if is_parsed else {}
    return {Kind.BOOLEAN: pl.Boolean, **numbers}.get(kind, pl.String)


def conversion(name: str, kind: Kind, *, is_sure: bool, is_parsed: bool) -> Any:
    """Return what makes a column what it is, read as `read_as` says; raises on a value that isn't that, when computed.

    Where only some rows were judged (not `is_sure`), parsing alone would take `00501` for a number and lose its
    zeros: then it raises on all that `judge` wouldn't take, and on a little more, such as `1e300`.
    """
    pl = importlib.import_module("polars")
    text = pl.col(name)
    if is_parsed and kind in {Kind.INTEGER, Kind.NUMBER}:
        return text if is_sure or kind is Kind.INTEGER else _bounded(text)
    if not is_sure and kind in _ODD:
        # No type takes the question mark.
        text = pl.when(_ODD[kind](text)).then(pl.lit("?")).otherwise(text).alias(name)
    if kind is Kind.INTEGER:
        return text.cast(pl.Int64)
    if kind is Kind.NUMBER:
        return text.cast(pl.Float64) if is_sure else _bounded(text.cast(pl.Float64))
    if kind is Kind.DECIMAL_COMMA:
        return text.str.replace(",", ".", literal=True).cast(pl.Float64)
    if kind is Kind.DATE:
        return text.str.to_date(kind.value)
    time = text.str.to_datetime(kind.value, time_unit="us")
    return time.dt.replace_time_zone("UTC") if kind is Kind.TIME_UTC else time


def _is_odd_integer(text: Any) -> Any:
    return _has_zero_in_front(text) | (text.str.len_bytes() > _DIGITS)


def _is_odd_number(text: Any) -> Any:
    is_fraction = [text.str.starts_with(sign + zero) for sign in ("", "-", "+") for zero in ("0.", "0e", "0E")]
    return _has_zero_in_front(text) & ~functools.reduce(operator.or_, is_fraction)


def _has_zero_in_front(text: Any) -> Any:
    length = text.str.len_bytes()
    has_sign = text.str.starts_with("-0") | text.str.starts_with("+0")
    return (text.str.starts_with("0") & (length > 1)) | (has_sign & (length > 2))


def _bounded(value: Any) -> Any:
    """Return the same numbers; raises, when computed, on one of more than 18 digits, on NaN and on the infinities."""
    pl = importlib.import_module("polars")
    # 64 bits hold ten times as much as 18 digits: of what is larger, some digits are lost already.
    return pl.when((value * 10).cast(pl.Int64).is_not_null()).then(value)


#: What a value's text is like, by the kind of its column, that parsing would take although `judge` wouldn't.
_ODD: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.INTEGER: _is_odd_integer,
    Kind.NUMBER: _is_odd_number,
    Kind.DECIMAL_COMMA: lambda text: ~text.str.contains(_COMMA),
    Kind.DATE: lambda text: text.str.len_bytes() != len("2024-01-31"),
}

_COUNTED: Final = ("all", "surely", *Kind)


def _counts(name: str, index: int) -> list[Any]:
    pl = importlib.import_module("polars")
    text = pl.col(name)
    patterns = {
        Kind.INTEGER: _INTEGER,
        Kind.DECIMAL_COMMA: _COMMA,
        "surely": _SURELY_COMMA,
        Kind.BOOLEAN: _BOOLEAN,
    }
    # What is larger than any float is text; so is a year before 1000, and a day that doesn't exist.
    number = text.str.contains(_NUMBER) & text.cast(pl.Float64, strict=False).is_finite()
    date = text.str.contains(_DATE) & text.str.to_date(Kind.DATE.value, strict=False).is_not_null()
    return [
        text.count().alias(f"{index}all"),
        *(text.str.contains(pattern).sum().alias(f"{index}{kind}") for kind, pattern in patterns.items()),
        number.sum().alias(f"{index}{Kind.NUMBER}"),
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
