"""Tables in JSON: records in a list or in lines, or columns in an object; long ones are never held whole."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.worker.desk import Desk
from shepherd.worker.recognise import texts_of
from shepherd.worker.tables import write_lazy, write_polars

_SPACE: Final = re.compile(r"[ \t\r\n]*")
#: Bytes that are read at once; 100,000 records or so.
_PART: Final = 16 * 1024 * 1024
#: Line breaks stand in a record only where spaces may: inside a string they are escaped.
_IN_ONE_LINE: Final = str.maketrans("\r\n", "  ")


def table_of(value: Any) -> list[dict[str, Any]] | dict[str, list[Any]]:
    """Return a JSON value as records or columns.

    Raises:
        ValueError: It is neither; the text says what it is.
    """
    if isinstance(value, list):
        if odd := sorted({type(item).__name__ for item in value if not isinstance(item, dict)}):
            raise ValueError(f"a list of records has only objects in it, not {', '.join(odd)}")
        return value
    columns: list[Any] = list(value.values()) if isinstance(value, dict) else [None]
    if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) < 2:
        return value  # type: ignore[no-any-return]  # just proved
    if all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        # As pandas writes it, each column's values by their row.
        return {name: list(column.values()) for name, column in value.items()}
    keys = ", ".join(list(value)[:10]) if isinstance(value, dict) else type(value).__name__
    raise ValueError(f"it is neither a list of records nor an object of columns of the same length ({keys})")


def json_to_parquet(source: Path, desk: Desk, *, encoding: str) -> Path:
    """Rewrite a JSON file as Parquet.

    Raises:
        TaskFailedError: `invalid_data`: it isn't JSON, or no table.
    """
    if next(_texts(source, encoding), "").lstrip(" \t\r\n").startswith("["):
        lines = desk.path("records.ndjson")
        with lines.open("w", encoding="utf-8", newline="") as file:
            for record in _records(_texts(source, encoding)):
                file.write(record.translate(_IN_ONE_LINE) + "\n")
        return ndjson_to_parquet(lines, desk, encoding="utf-8")
    target = desk.path("data.parquet")
    try:
        table = table_of(strict_json.loads("".join(_texts(source, encoding))))
        pl = importlib.import_module("polars")
        write_polars(pl.DataFrame(table, infer_schema_length=None), target)
    except strict_json.StrictJsonError as error:
        _refuse(f"the document {error}")
    except ValueError as error:
        _refuse(str(error))
    return target


def ndjson_to_parquet(source: Path, desk: Desk, *, encoding: str) -> Path:
    """Rewrite a file with one JSON object in each line as Parquet. Raises as `json_to_parquet` does."""
    pl = importlib.import_module("polars")
    path, target = source, desk.path("data.parquet")
    if encoding != "utf-8":
        path = desk.path("recoded.ndjson")
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(_texts(source, encoding))
    try:
        parts, schema = _parts(path, desk)
        frame = pl.scan_ndjson(parts, schema=schema) if parts else pl.LazyFrame()
        write_lazy(frame, target)
    except pl.exceptions.PolarsError as error:
        _refuse(f"its records don't make a table: {error}")
    return target


def _parts(path: Path, desk: Desk) -> tuple[list[Path], Any]:
    """Return the file in parts of whole lines, since polars maps each into memory, and the types that hold for all."""
    pl = importlib.import_module("polars")
    folder, parts, seen = desk.folder(), list[Path](), None
    with path.open("rb") as file:
        while block := file.read(_PART):
            block += file.readline()
            if not block.strip():
                continue
            parts.append(folder / f"{len(parts)}.ndjson")
            parts[-1].write_bytes(block)
            types = pl.read_ndjson(block, infer_schema_length=None).clear()
            seen = types if seen is None else pl.concat([seen, types], how="diagonal_relaxed")
    return parts, None if seen is None else seen.schema


def _texts(path: Path, encoding: str) -> Iterator[str]:
    try:
        yield from texts_of(path, encoding)
    except UnicodeError as error:
        _refuse(f"it isn't all {encoding}: {error}")


def _records(texts: Iterator[str]) -> Iterator[str]:
    """Yield the objects of a JSON list as they are written, holding about one at a time."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    buffer, at, number = "", 0, 0
    needed = 1
    for text in texts:
        buffer, at = buffer[at:] + text, 0
        # Each failure doubles what is waited for: a record of many chunks isn't begun anew with every one of them.
        if len(buffer) < needed and text:
            continue
        while (start := _next_start(buffer, at, is_first=number == 0)) is not None:
            if buffer[start] == "]":
                return
            if buffer[start] != "{":
                _refuse(f"item {number} of the list is no object")
            try:
                _, end = decoder.raw_decode(buffer, start)
            except json.JSONDecodeError:
                needed = 2 * (len(buffer) - at)
                break
            yield buffer[start:end]
            at, number, needed = end, number + 1, 1
    _refuse(f"item {number} of the list isn't whole or isn't JSON")


def _next_start(buffer: str, at: int, *, is_first: bool) -> int | None:
    """Return where the next item or the list's end begins; None where more is needed to know."""
    start = _after_space(buffer, at)
    if start < len(buffer) and buffer[start] == ("[" if is_first else ","):
        start = _after_space(buffer, start + 1)
    return start if start < len(buffer) else None


def _after_space(buffer: str, at: int) -> int:
    found = _SPACE.match(buffer, at)
    return found.end() if found else at


def _no_number(text: str) -> NoReturn:
    _refuse(f"{text} is no number in JSON")


def _refuse(reason: str) -> NoReturn:
    raise TaskFailedError("invalid_data", f"the data can't be read as a table in JSON: {reason}")
