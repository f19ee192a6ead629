"""What a Parquet file says of itself at its end: rows, columns, types, and each column's smallest and largest value.

Read here rather than through a frame library: polars doesn't give these figures out, and importing pyarrow for them
would cost each child 40 MB. https://parquet.apache.org/docs/file-format/metadata/
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from shepherd.worker.thrift import Struct, read_struct

#: What a Parquet file begins and ends with.
MAGIC: Final = b"PAR1"
#: Of a footer; from a larger one only rows and columns are read: 100,000 column chunks would take seconds.
_MOST_FOR_STATISTICS: Final = 2 * 1024 * 1024
_MOST_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One top-level column of a file."""

    name: str
    #: In lower case, as in `int64`, `string`, `datetime`, `list`.
    type: str
    #: None where the file doesn't say.
    nulls: int | None = None
    #: Of Python's own types; None where the file doesn't say, or where the type has no order.
    min: Any = None
    max: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """All that is known of a file without reading its data."""

    rows: int
    columns: tuple[Column, ...]


def read_footer(path: Path, *, has_figures: bool = True) -> Footer | None:
    """Return what a Parquet file says of itself; None where it is none, or says it in a way that isn't understood.

    Without figures, nothing is read of nulls, smallest and largest values, and so of each column in each row group.
    """
    try:
        raw = raw_footer(path)
        return _footer(read_struct(raw, until=None if has_figures and len(raw) <= _MOST_FOR_STATISTICS else 4))
    except (OSError, IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error, OverflowError):
        return None


def raw_footer(path: Path) -> bytes:
    """Return a Parquet file's FileMetaData as it stands there.

    Raises:
        ValueError: It is no Parquet file, as does OSError.
    """
    with path.open("rb") as file:
        file.seek(-8, 2)
        tail = file.read(8)
        (size,) = struct.unpack("<I", tail[:4])
        if tail[4:] != MAGIC or size > _MOST_BYTES:
            raise ValueError("no Parquet file")
        file.seek(-8 - size, 2)
        return file.read(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A type, and how its values stand in statistics."""

    name: str
    decode: Callable[[bytes], Any] | None = None


def _footer(metadata: dict[int, Any]) -> Footer:
    kinds = {element[4].decode("utf-8", "replace"): _kind(element) for element in top_level(metadata[2])}
    statistics = _statistics(metadata.get(4, []), kinds) if 4 in metadata else {}
    columns = (Column(name=name, type=kind.name, **statistics.get(name, {})) for name, kind in kinds.items())
    return Footer(rows=metadata[3], columns=tuple(columns))


def top_level(schema: Sequence[Struct]) -> Iterator[Struct]:
    """Yield what a schema says of each top-level column, and nothing of what is nested in it."""
    inside = 0
    for element in schema[1:]:
        if inside > 0:
            inside += element.get(5, 0) - 1
        else:
            yield element
            inside = element.get(5, 0)


#: By the number of Parquet's physical type: BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTE_ARRAY, FIXED.
_PHYSICAL: Final = {
    0: _Kind(name="boolean", decode=lambda raw: raw != b"\0"),
    1: _Kind(name="int32", decode=lambda raw: int.from_bytes(raw, "little", signed=True)),
    2: _Kind(name="int64", decode=lambda raw: int.from_bytes(raw, "little", signed=True)),
    3: _Kind(name="datetime"),
    4: _Kind(name="float32", decode=lambda raw: struct.unpack("<f", raw)[0]),
    5: _Kind(name="float64", decode=lambda raw: struct.unpack("<d", raw)[0]),
    6: _Kind(name="binary"),
    7: _Kind(name="binary"),
}
_STRING: Final = _Kind(name="string", decode=lambda raw: raw.decode("utf-8", "replace"))
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # a wall clock's time, until its type names a zone
#: In a column's statistics, by their numbers: the values, and whether each is one or only a bound, cut short.
_MAX, _MIN, _MAX_IS_EXACT, _MIN_IS_EXACT = 5, 6, 7, 8
#: Units of Parquet's times, in parts of a second.
_UNITS: Final = {1: 10**3, 2: 10**6, 3: 10**9}


def _kind(element: dict[int, Any]) -> _Kind:
    logical, converted = element.get(10, {}), element.get(6)
    if element.get(5):
        return _nested(logical, converted)
    for number, make in _LOGICAL.items():
        if number in logical:
            return make(element, logical[number])
    if converted in _CONVERTED:
        return _CONVERTED[converted]
    return _PHYSICAL[element[1]]


def _nested(logical: dict[int, Any], converted: int | None) -> _Kind:
    if 3 in logical or converted == 3:
        return _Kind(name="list")
    return _Kind(name="map" if 2 in logical else "struct")


def _integer(_element: dict[int, Any], logical: dict[int, Any]) -> _Kind:
    bits, is_signed = logical[1], bool(logical[2])
    name = f"{'int' if is_signed else 'uint'}{bits}"
    return _Kind(name=name, decode=lambda raw: int.from_bytes(raw, "little", signed=is_signed))


def _decode_date(raw: bytes) -> date:
    return (_EPOCH + timedelta(days=int.from_bytes(raw, "little", signed=True))).date()


def _timestamp(_element: dict[int, Any], logical: dict[int, Any]) -> _Kind:
    ticks_a_second = _UNITS[next(iter(logical[2]))]
    # What has a zone is kept in UTC, whichever zone it is shown in.
    epoch = _EPOCH.replace(tzinfo=UTC) if logical.get(1) else _EPOCH

    def decode(raw: bytes) -> datetime:
        ticks = int.from_bytes(raw, "little", signed=True)
        return epoch + timedelta(microseconds=ticks * 10**6 // ticks_a_second)

    return _Kind(name="datetime", decode=decode)


def _decimal(element: dict[int, Any], logical: dict[int, Any]) -> _Kind:
    def decode(raw: bytes) -> Decimal:
        is_little = element[1] in {1, 2}
        unscaled = int.from_bytes(raw, "little" if is_little else "big", signed=True)
        return Decimal(unscaled).scaleb(-logical.get(1, 0))

    return _Kind(name="decimal", decode=decode)


def _always(kind: _Kind) -> Callable[[dict[int, Any], Any], _Kind]:
    return lambda _element, _logical: kind


_DATE: Final = _Kind(name="date", decode=_decode_date)
#: By the number of the logical type.
_LOGICAL: Final[dict[int, Callable[[dict[int, Any], Any], _Kind]]] = {
    1: _always(_STRING),
    4: _always(_STRING),
    5: _decimal,
    6: _always(_DATE),
    7: _always(_Kind(name="time")),
    8: _timestamp,
    10: _integer,
    11: _always(_Kind(name="null")),
}
#: What older writers say in its place; mostly without statistics, as they differ in what they mean by them.
_CONVERTED: Final = {
    0: _STRING,
    4: _STRING,
    5: _Kind(name="decimal"),
    6: _DATE,
    7: _Kind(name="time"),
    8: _Kind(name="time"),
    9: _Kind(name="datetime"),
    10: _Kind(name="datetime"),
    **{11 + index: _Kind(name=f"uint{8 << index}") for index in range(4)},
    **{15 + index: _Kind(name=f"int{8 << index}") for index in range(4)},
    19: _STRING,
}


def _statistics(groups: list[dict[int, Any]], kinds: dict[str, _Kind]) -> dict[str, dict[str, Any]]:
    """Return nulls, min and max of each column over all row groups, as far as each of these says so."""
    found: dict[str, list[dict[int, Any]]] = {name: [] for name in kinds}
    for group in groups:
        for chunk in group[1]:
            path = chunk[3][3]
            if len(path) == 1:
                metadata = chunk[3]
                found[path[0].decode("utf-8", "replace")].append({**metadata.get(12, {}), 0: metadata[5]})
    return {name: _merged(parts, kinds[name]) for name, parts in found.items() if len(parts) == len(groups)}


def _merged(parts: list[dict[int, Any]], kind: _Kind) -> dict[str, Any]:
    nulls = [part.get(3) for part in parts]
    merged: dict[str, Any] = {"nulls": None if None in nulls else sum(nulls)}
    # A row group of nulls alone has no smallest value, and takes nothing from the others'.
    filled = [part for part in parts if part.get(3) != part[0]]
    if kind.decode is None or not filled or not all(map(_has_values, filled)):
        return merged
    try:
        smallest = min(kind.decode(part[_MIN]) for part in filled)
        largest = max(kind.decode(part[_MAX]) for part in filled)
    except (ArithmeticError, ValueError, struct.error):
        # Such as a date after the year 9999: no reason to say nothing of all other columns.
        return merged
    # NaN is equal to nothing.
    return {**merged, "min": smallest, "max": largest} if smallest == smallest and largest == largest else merged  # noqa: PLR0124


def _has_values(statistics: dict[int, Any]) -> bool:
    is_exact = statistics.get(_MAX_IS_EXACT, True) and statistics.get(_MIN_IS_EXACT, True)
    return bool(is_exact and _MAX in statistics and _MIN in statistics)
