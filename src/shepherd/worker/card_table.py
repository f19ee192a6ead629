"""What a card says of a table: rows, columns, the first rows, and what changed against another one."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

from shepherd.worker import tables
from shepherd.worker.failure import printable
from shepherd.worker.footer import Column, read_footer

#: What a card shows at most.
FIRST_ROWS: Final = 20
_COLUMNS: Final = 300
_FIRST_COLUMNS: Final = 60
_CHARACTERS: Final = 100
#: What every JSON reader holds without rounding (RFC 8259, section 6).
_EXACT: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A table's rows, where they are known, and the types of its columns by name, in their order."""

    rows: int | None
    types: Mapping[str, str]


def described(path: Path, *, is_whole: bool = True) -> dict[str, Any] | None:
    """Return the part of a card that tells a Parquet file; None where it can't be read.

    What only holds a table's first rows (not `is_whole`) says nothing of how many there are, and which values.
    """
    footer = read_footer(path)
    if footer is None:
        return None
    shown = [column for column in footer.columns if not tables.is_unnamed_index(column.name)]
    columns = [_told(column) if is_whole else _typed(column) for column in shown]
    return {
        "kind": "table",
        **({"rows": footer.rows} if is_whole else {}),
        "column_count": len(columns),
        "columns": columns[:_COLUMNS],
        "first": _first_rows(path),
    }


def outline(path: Path, *, is_whole: bool = True) -> Outline | None:
    """Return what a table consists of, from its footer; None where that can't be read."""
    footer = read_footer(path, has_figures=False)
    if footer is None:
        return None
    types = {column.name: column.type for column in footer.columns if not tables.is_unnamed_index(column.name)}
    return Outline(rows=footer.rows if is_whole else None, types=types)


def change(before: Outline, after: Outline) -> dict[str, Any]:
    both = [name for name in before.types if name in after.types]
    return {
        "rows_in": before.rows,
        "rows_out": after.rows,
        "added": [_named(name) for name in after.types if name not in before.types],
        "removed": [_named(name) for name in before.types if name not in after.types],
        "retyped": [
            {"name": _named(name), "from": before.types[name], "to": after.types[name]}
            for name in both
            if before.types[name] != after.types[name]
        ],
    }


def _told(column: Column) -> dict[str, Any]:
    figures = {"nulls": column.nulls, "min": _cell(column.min), "max": _cell(column.max)}
    known = {name: value for name, value in figures.items() if value is not None}
    return {**_typed(column), **known}


def _typed(column: Column) -> dict[str, Any]:
    return {"name": _named(column.name), "type": column.type}


def _named(column: str) -> str:
    return printable(column)[:_CHARACTERS]


def _first_rows(path: Path) -> list[list[Any]]:
    library = _library()
    if library == "polars":
        scanned = tables.scan(path)
        names = scanned.collect_schema().names()[:_FIRST_COLUMNS]
        rows = tables.rows_of(scanned.select(names).head(FIRST_ROWS).collect()) if names else []
    elif library == "pyarrow":
        file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
        names = [name for name in file.schema_arrow.names if not tables.is_unnamed_index(name)][:_FIRST_COLUMNS]
        batch = next(file.iter_batches(batch_size=FIRST_ROWS, columns=names), None) if names else None
        rows = [] if batch is None else list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    else:
        rows = []
    return [[_cell(value) for value in row] for row in rows]


def _library() -> str:
    """Return the frame library that the task's code uses, or any that is there."""
    loaded = [name for name in ("polars", "pyarrow") if name in sys.modules]
    return next(iter(loaded or [name for name in ("polars", "pyarrow") if importlib.util.find_spec(name)]), "")


def _cell(value: Any) -> Any:
    """Return a value as a card's JSON shows it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _EXACT else str(value)[:_CHARACTERS]
    if isinstance(value, float):
        # NaN and the infinities are no JSON.
        return value if value - value == 0 else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value)} byte{'s' if len(value) != 1 else ''}"
    text = printable(str(value) if isinstance(value, str) else f"{value}")
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
