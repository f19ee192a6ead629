"""A result in the form that a caller wants: as it was stored, or a table as CSV, JSON, Parquet or Excel.

Whatever the size, what is held in memory is a few batches of rows: data goes from file to file.
polars is imported by the first call only, so that the web process starts and stays light without it.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from shepherd.errors import NotAcceptableError, TaskFailedError
from shepherd.wire.document import DOCUMENT
from shepherd.wire.media import CSV, JSON, NDJSON, PARQUET, TSV, XLS, XLSX
from shepherd.wire.value import ClaimCheck, Inline, Value
from shepherd.worker import tables
from shepherd.worker.desk import Desk
from shepherd.worker.recognise import kind_of_file, stated_kind
from shepherd.worker.sample import cut
from shepherd.worker.tabulate import as_parquet

#: What a sheet of Excel holds, less the row of headings.
SHEET_ROWS: Final = 1_048_575
SHEET_COLUMNS: Final = 16_384
_CELL: Final = 32_767
_BATCH: Final = 10_000
#: Bytes of a result that is held whole to be read as a table.
_LARGEST_WHOLE: Final = 64 * 1024**2
_HELD_WHOLE: Final = {JSON, XLSX, XLS}
#: Text whose first rows can be read without the others.
_LINES: Final = {CSV, TSV, NDJSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a table."""

    media_type: str
    write: Callable[[Any, Path], None]


def table_of(value: Value, desk: Desk, *, rows: int | None = None) -> Any:
    """Return a result as a lazy frame, read as a task would get it; bound to the desk's files.

    Where only so many first `rows` are wanted, text isn't read further than it takes.

    Raises:
        NotAcceptableError: It is no table, or this server has no polars.
    """
    if not importlib.util.find_spec("polars"):
        raise NotAcceptableError("this server can't read tables: polars isn't installed beside it")
    try:
        if isinstance(value, Inline):
            return _of_records(value.value)
        if stated_kind(value) == DOCUMENT:
            raise NotAcceptableError("the result is several values; name one of them with `part`")
        if rows is not None and stated_kind(value) in _LINES:
            # What a column is doesn't change from page to page.
            cut(value, rows=max(rows, _BATCH), desk=desk)
        _check_size(value, stated_kind(value))
        path = desk.fetch(value)
        _check_size(value, kind_of_file(path, value))
        return tables.scan(as_parquet(path, value, desk))
    except TaskFailedError as error:
        raise NotAcceptableError(f"the result is no table: {error}") from None


def _check_size(value: ClaimCheck, kind: str) -> None:
    if kind in _HELD_WHOLE and value.size > _LARGEST_WHOLE:
        raise NotAcceptableError(
            f"the result is {value.size} bytes of {kind}; up to {_LARGEST_WHOLE} is read as a table: take it as it is"
        )


@contextmanager
def reading() -> Iterator[None]:
    """Say of what can't be read, or written in some form, that it can't, wherever polars finds out.

    Raises:
        NotAcceptableError: It can't.
    """
    try:
        yield
    # A panic of polars is no `Exception`.
    except BaseException as error:
        if type(error).__module__.partition(".")[0] not in {"polars", "pyo3_runtime"}:
            raise
        reason = str(error).partition("\n")[0][:300]
        raise NotAcceptableError(f"the result can't be read as a table, or not written so: {reason}") from error


def _of_records(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return tables.lazy_of_records(value)
    raise NotAcceptableError("the result is JSON that is no list of records, so it is no table")


def _csv(frame: Any, target: Path) -> None:
    nested = [name for name, kind in frame.collect_schema().items() if kind.is_nested()]
    _as_text(frame).with_columns(map(_as_json, nested)).sink_csv(target)


def _as_text(frame: Any) -> Any:
    """Write as text what neither CSV nor JSON has a form for: bytes in hexadecimal digits, durations in seconds."""
    pl = importlib.import_module("polars")
    schema = frame.collect_schema()
    return frame.with_columns(
        *(pl.col(name).bin.encode("hex") for name, kind in schema.items() if kind == pl.Binary),
        *(tables.seconds(name) for name, kind in schema.items() if kind == pl.Duration),
    )


def _as_json(name: str) -> Any:
    """Return the expression of a column of lists or structures as JSON, to be a field of CSV."""
    pl = importlib.import_module("polars")
    # Only a structure is made JSON of.
    text = pl.struct(pl.col(name).alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
    return pl.when(pl.col(name).is_not_null()).then(text).alias(name)


def _parquet(frame: Any, target: Path) -> None:
    frame.sink_parquet(target)


def _json(frame: Any, target: Path) -> None:
    """Write one JSON list, a record in each line."""
    lines = target.with_suffix(".lines")
    _as_text(frame).sink_ndjson(lines)
    with lines.open("rb") as read, target.open("wb") as out:
        out.write(b"[")
        for number, line in enumerate(read):
            out.write((b",\n" if number else b"\n") + line.rstrip(b"\n"))
        out.write(b"\n]\n")
    lines.unlink()


def _xlsx(frame: Any, target: Path) -> None:
    xlsxwriter = importlib.import_module("xlsxwriter")
    names = frame.collect_schema().names()
    rows = frame.select(importlib.import_module("polars").len()).collect(engine="streaming").item()
    if rows > SHEET_ROWS or len(names) > SHEET_COLUMNS:
        raise NotAcceptableError(
            f"the table has {rows} rows and {len(names)} columns; a sheet of Excel holds {SHEET_ROWS} and "
            f"{SHEET_COLUMNS}: take csv or parquet"
        )
    # Row by row into the file.
    with xlsxwriter.Workbook(target, {"constant_memory": True, "tmpdir": target.parent}) as book:
        sheet = book.add_worksheet("result")
        # A text is a text: never a formula, not even `{=1+1}`, nor a number or a link.
        sheet.add_write_handler(str, lambda sheet, *cell: sheet.write_string(*cell))
        sheet.write_row(0, 0, [name[:_CELL] for name in names], book.add_format({"bold": True}))
        sheet.freeze_panes(1, 0)
        for number, row in enumerate(_rows(frame), start=1):
            sheet.write_row(number, 0, map(_excel, row))


def _rows(frame: Any) -> Iterator[tuple[Any, ...]]:
    for batch in frame.collect_batches(chunk_size=_BATCH, maintain_order=True):
        yield from tables.rows_of(batch)


def _excel(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # What a sheet's numbers hold without rounding.
        return value if abs(value) < 10**15 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return str(plain(value))[:_CELL]


def plain(value: Any) -> Any:
    """Return a cell of a table as JSON has it; NaN and the infinities as text, as no JSON holds them."""
    if value is None or isinstance(value, bool | int | str):
        return value
    return next(convert for kinds, convert in _PLAIN if isinstance(value, kinds))(value)


_PLAIN: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    # Of NaN and the infinities, the difference to itself isn't 0.
    (float, lambda value: value if value - value == 0 else str(value)),
    ((datetime, date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    ((list, tuple), lambda value: [plain(each) for each in value]),
    (Mapping, lambda value: {str(key): plain(each) for key, each in value.items()}),
    (bytes, lambda value: f"{len(value)} bytes"),
    (object, str),
)


FORMS: Final = {
    "csv": Form(media_type=CSV, write=_csv),
    "json": Form(media_type=JSON, write=_json),
    "parquet": Form(media_type=PARQUET, write=_parquet),
    "xlsx": Form(media_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", write=_xlsx),
}
