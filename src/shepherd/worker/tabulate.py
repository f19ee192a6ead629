"""Any file that holds a table, as Parquet: what it is is recognised, whatever its sender says."""

import gzip
import importlib
import importlib.util
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shepherd.errors import TaskFailedError
from shepherd.wire.media import BYTES, CSV, GEOJSON, GZIP, HTML, JSON, NDJSON, PARQUET, TSV, XLS, XLSX, XML
from shepherd.wire.value import ClaimCheck
from shepherd.worker.delimited import csv_to_parquet
from shepherd.worker.desk import Desk
from shepherd.worker.json_tables import json_to_parquet, ndjson_to_parquet
from shepherd.worker.recognise import encoding_of, kind_of_file
from shepherd.worker.sample import cut_file
from shepherd.worker.tables import write_polars
from shepherd.worker.xml_tables import xml_to_parquet

_CHUNK: Final = 1024 * 1024
#: How many times its size a compressed table may have; gzip can make a thousand of one, tables come to fifty.
_MOST_EXPANSION: Final = 200
_ALWAYS_EXPANDED: Final = 1024**3
#: Bytes of XML in a workbook, which is held whole.
_LARGEST_WORKBOOK: Final = 2 * 1024**3
#: Of a file larger than so many bytes a glance takes so many rows.
_READ_WHOLE: Final = 16 * 1024 * 1024
_GLANCE: Final = 10_000


def as_parquet(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    """Return a Parquet file of the table that a fetched file holds: the file itself if it is one.

    Raises:
        TaskFailedError: `invalid_data`: it holds no table that can be read here; the text says what it is.
    """
    kind = kind_of_file(path, claim)
    table = _cut(path if kind == PARQUET else _converted(path, kind, claim, desk), desk)
    desk.keep_table(claim, table)
    return table


def glance(path: Path, claim: ClaimCheck, desk: Desk) -> tuple[Path, bool]:
    """Return a Parquet file of a CSV file's first rows, and whether these are all: only small files are read whole.

    Raises:
        TaskFailedError: `invalid_data`: it isn't CSV.
    """
    kind = kind_of_file(path, claim)
    if kind not in {CSV, TSV}:
        raise _refused(claim, f"is {kind}")
    is_whole = path.stat().st_size <= _READ_WHOLE
    if not is_whole:
        whole, path = path, desk.path("head.csv")
        cut_file(whole, path, kind=kind, rows=_GLANCE)
    return _converted(path, kind, claim, desk), is_whole


def _cut(table: Path, desk: Desk) -> Path:
    if desk.most_rows is None:
        return table
    target = desk.path("sample.parquet")
    cut_file(table, target, kind=PARQUET, rows=desk.most_rows)
    return target


def _converted(path: Path, kind: str, claim: ClaimCheck, desk: Desk) -> Path:
    if kind == GZIP:
        return as_parquet(_expanded(path, desk), _without_gz(claim), desk)
    if not importlib.util.find_spec("polars"):
        raise _refused(claim, f"is {kind}; to read that as a table, install polars here (shepherd-pipelines[polars])")
    if kind in _CONVERTERS:
        return _CONVERTERS[kind](path, claim, desk)
    if kind == HTML:
        raise _refused(claim, "is a web page, not a table; is the address that of the file itself?")
    if kind == GEOJSON:
        raise _refused(claim, "is GeoJSON, which stays as it is; declare dict or pathlib.Path")
    raise _refused(claim, f"is {kind}, which isn't read as a table; CSV, JSON, Excel, XML and Parquet are")


def _csv(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    return csv_to_parquet(path, desk, encoding=encoding_of(path, claim))


def _tsv(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    return csv_to_parquet(path, desk, encoding=encoding_of(path, claim), separator="\t")


def _json(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    return json_to_parquet(path, desk, encoding=encoding_of(path, claim))


def _ndjson(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    return ndjson_to_parquet(path, desk, encoding=encoding_of(path, claim))


def _xml(path: Path, _claim: ClaimCheck, desk: Desk) -> Path:
    return xml_to_parquet(path, desk)


def _excel(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    """Take the first sheet; a workbook has a million rows at most, so it is held whole."""
    if not importlib.util.find_spec("fastexcel"):
        raise _refused(claim, "is Excel; to read that, install fastexcel here (shepherd-pipelines[excel])")
    _check_workbook(path, claim)
    pl = importlib.import_module("polars")
    try:
        frame = pl.read_excel(path, sheet_id=1, raise_if_empty=False, infer_schema_length=None)
    except Exception as error:
        raise _refused(claim, f"can't be read as Excel: {error}") from error
    target = desk.path("data.parquet")
    write_polars(
        frame.rename({name: f"column_{int(name[11:]) + 1}" for name in frame.columns if _NO_NAME.fullmatch(name)}),
        target,
    )
    return target


def _check_workbook(path: Path, claim: ClaimCheck) -> None:
    """Refuse a zip file that would fill the memory: a sheet that is full has some hundred MiB of XML."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as book:
        size = sum(member.file_size for member in book.infolist())
    if size > _LARGEST_WORKBOOK:
        raise _refused(claim, f"is Excel of {size} bytes without compression; more than {_LARGEST_WORKBOOK} isn't read")


#: How fastexcel calls a column without a name, by its place from 0.
_NO_NAME: Final = re.compile(r"__UNNAMED__\d+")
_CONVERTERS: Final[dict[str, Callable[[Path, ClaimCheck, Desk], Path]]] = {
    CSV: _csv,
    TSV: _tsv,
    JSON: _json,
    NDJSON: _ndjson,
    XML: _xml,
    XLSX: _excel,
    XLS: _excel,
}


def _expanded(path: Path, desk: Desk) -> Path:
    target = desk.path("expanded")
    most = max(_ALWAYS_EXPANDED, path.stat().st_size * _MOST_EXPANSION)
    try:
        with gzip.open(path) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                if file.tell() > most:
                    raise TaskFailedError(
                        "invalid_data", f"the data expands to more than {most} bytes, as no table does"
                    )
                file.write(chunk)
    except (gzip.BadGzipFile, EOFError) as error:
        raise TaskFailedError("invalid_data", f"the data can't be expanded: {error}") from None
    return target


def _without_gz(claim: ClaimCheck) -> ClaimCheck:
    uri = claim.uri.removesuffix(".gz")
    return ClaimCheck(uri=uri, sha256=claim.sha256, size=claim.size, media_type=BYTES)


def _refused(claim: ClaimCheck, reason: str) -> TaskFailedError:
    return TaskFailedError("invalid_data", f"the data {claim.uri.rpartition('/')[2]} {reason}")
