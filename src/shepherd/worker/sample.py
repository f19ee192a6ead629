"""The first rows of a table in place of all of it, for a run that is only tried out."""

import csv
import functools
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.media import CSV, JSON, NDJSON, PARQUET, TSV, XLS
from shepherd.wire.value import ClaimCheck, Value
from shepherd.worker import tables
from shepherd.worker.delimited import layout_of
from shepherd.worker.desk import Desk
from shepherd.worker.recognise import kind_of_file, stated_kind, wide_encoding_of

#: In characters: what is never closed isn't held until the end of the file.
_LONGEST_ROW: Final = 64 * 1024 * 1024


def cut(value: Value, *, rows: int | None, desk: Desk) -> None:
    """Have the desk give out only the first rows of what a claim holds, where that is a table.

    Of CSV, TSV, lines of JSON and Parquet no more than these rows is read. What isn't said to be a table, and Excel and
    XML, are cut when they are read as one. Anything else stays whole.

    Raises:
        TaskFailedError: `invalid_data`: it is a table, but no library here can cut it.
        StoreUnavailableError: As a store's `fetch`, and `ProtocolError`.
    """
    if rows is None or not isinstance(value, ClaimCheck):
        return
    desk.most_rows = rows
    if stated_kind(value) not in _TABLES:
        return
    whole = desk.fetch(value)
    target = desk.path(f"sample-{whole.name}")
    # By its bytes: servers call Excel CSV, and CSV Excel.
    if cut_file(whole, target, kind=kind_of_file(whole, value), rows=rows):
        desk.replace(value, target)
        desk.most_rows = None


def cut_file(whole: Path, target: Path, *, kind: str, rows: int) -> bool:
    """Write a table with its first rows only, in the form that it has; False where that can't be."""
    return kind in _CUTS and _CUTS[kind](whole, target, rows)


def _parquet(whole: Path, target: Path, rows: int) -> bool:
    if importlib.util.find_spec("polars"):
        tables.sink_lazy(tables.scan(whole).head(rows), target)
        return True
    if importlib.util.find_spec("pyarrow"):
        file = importlib.import_module("pyarrow.parquet").ParquetFile(whole)
        batches = itertools.islice(file.iter_batches(batch_size=rows), 1)
        table = importlib.import_module("pyarrow").Table.from_batches(batches, schema=file.schema_arrow)
        tables.write_arrow(table, target)
        return True
    raise TaskFailedError("invalid_data", "a sample of a Parquet file needs polars or pyarrow here")


def _csv(whole: Path, target: Path, rows: int, *, separator: str = "") -> bool:
    """Copy the head as it stands: bytes, separators and encoding are for whoever reads it next."""
    wide = wide_encoding_of(whole)
    layout = layout_of(whole, encoding=wide or "utf-8-sig", separator=separator)
    # In any other encoding that CSVs have, line breaks and quotes are the bytes that they are in Latin-1.
    encoding = wide or "latin-1"
    taken = 0

    with whole.open(newline="", encoding=encoding) as lines, target.open("w", newline="", encoding=encoding) as out:

        def copying() -> Iterator[str]:
            nonlocal taken
            for line in lines:
                out.write(line)
                taken += len(line)
                if taken > _LONGEST_ROW:
                    reason = f"one row has more than {_LONGEST_ROW} characters; is a quote not closed?"
                    raise TaskFailedError("invalid_data", f"the data can't be read as CSV: {reason}")
                yield line

        # The reader only says where a row ends: a line break within quotes is no end of one, a blank line no row.
        left = layout.skipped + 1 + rows
        for record in csv.reader(copying(), delimiter=layout.separator):
            left, taken = left - bool(record), 0
            if not left:
                break
    return True


def _ndjson(whole: Path, target: Path, rows: int) -> bool:
    if wide_encoding_of(whole):
        return False
    with whole.open("rb") as lines, target.open("wb") as out:
        out.writelines(itertools.islice((line for line in lines if line.strip()), rows))
    return True


def _json(whole: Path, target: Path, rows: int) -> bool:
    try:
        document = strict_json.loads(whole.read_bytes())
    except strict_json.StrictJsonError:
        # Whoever reads it next says what is wrong with it.
        return False
    if not isinstance(document, list):
        return False
    target.write_text(strict_json.dumps(document[:rows]))
    return True


_CUTS: Final[dict[str, Callable[[Path, Path, int], bool]]] = {
    PARQUET: _parquet,
    CSV: _csv,
    TSV: functools.partial(_csv, separator="\t"),
    NDJSON: _ndjson,
    JSON: _json,
}
#: What is said of data that is a table, whichever: as text alone, a text may be meant.
_TABLES: Final = {*_CUTS, XLS}
