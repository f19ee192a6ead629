"""The first rows of a table in place of all of it, for a run that is only tried out."""

import csv
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.value import ClaimCheck, Value
from shepherd.worker import tables
from shepherd.worker.desk import Desk
from shepherd.worker.media import CSV, JSON, PARQUET, kind_of


def cut(value: Value, *, rows: int | None, desk: Desk) -> None:
    """Have the desk give out only the first rows of what a claim holds, where that is a table.

    Of a CSV or Parquet file no more than these rows is read. Anything else stays whole.

    Raises:
        TaskFailedError: `invalid_data`: it is a table, but no library here can cut it.
        StoreUnavailableError: As a store's `fetch`, and `ProtocolError`.
    """
    if rows is None or not isinstance(value, ClaimCheck):
        return
    kind = kind_of(value)
    if kind not in _CUTS:
        # Excel, XML, a file that nobody named rightly: whether it is a table turns out when it is read as one.
        desk.most_rows = rows
        return
    whole = desk.fetch(value)
    target = desk.path(f"sample-{whole.name}")
    if _CUTS[kind](whole, target, rows):
        desk.replace(value, target)


def _parquet(whole: Path, target: Path, rows: int) -> bool:
    if importlib.util.find_spec("polars"):
        tables.scan(whole, PARQUET).head(rows).sink_parquet(target)
        return True
    if importlib.util.find_spec("pyarrow"):
        parquet = importlib.import_module("pyarrow.parquet")
        file = parquet.ParquetFile(whole)
        batches = itertools.islice(file.iter_batches(batch_size=rows), 1)
        table = importlib.import_module("pyarrow").Table.from_batches(batches, schema=file.schema_arrow)
        parquet.write_table(table, target)
        return True
    raise TaskFailedError("invalid_data", "a sample of a Parquet file needs polars or pyarrow here")


def _csv(whole: Path, target: Path, rows: int) -> bool:
    """Copy the head as it stands: bytes, separators and encoding are for whoever reads it next."""
    encoding = _encoding(whole)
    copied: list[str] = []

    def copying(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            copied.append(line)
            yield line

    with whole.open(newline="", encoding=encoding) as lines:
        # The reader only says where a row ends: a line break within quotes is no end of one.
        for _ in itertools.islice(csv.reader(copying(lines)), rows + 1):
            pass
    target.write_text("".join(copied), encoding=encoding, newline="")
    return True


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        mark = file.read(2)
    # In any other encoding that CSVs have, line breaks and quotes are the bytes that they are in Latin-1.
    return {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(mark, "latin-1")


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


_CUTS: Final[dict[str, Callable[[Path, Path, int], bool]]] = {PARQUET: _parquet, CSV: _csv, JSON: _json}
