"""Any file that holds a table, as Parquet: what it is is recognised, whatever its sender says."""

import gzip
import importlib.util
import shutil
from pathlib import Path
from typing import Final

from shepherd.errors import TaskFailedError
from shepherd.wire.value import ClaimCheck
from shepherd.worker.delimited import csv_to_parquet
from shepherd.worker.desk import Desk
from shepherd.worker.media import CSV, HTML, PARQUET, TSV
from shepherd.worker.recognise import GZIP, encoding_of, kind_of_file

_READABLE: Final = "CSV, Parquet"


def as_parquet(path: Path, claim: ClaimCheck, desk: Desk) -> Path:
    """Return a Parquet file of the table that a fetched file holds: the file itself if it is one.

    Raises:
        TaskFailedError: `invalid_data`: it holds no table that can be read here; the text says what it is.
    """
    kind = kind_of_file(path, claim)
    table = path if kind == PARQUET else _converted(path, kind, claim, desk)
    desk.keep_table(claim, table)
    return table


def _converted(path: Path, kind: str, claim: ClaimCheck, desk: Desk) -> Path:
    if kind == GZIP:
        return as_parquet(_expanded(path, desk), _without_gz(claim), desk)
    if not importlib.util.find_spec("polars"):
        raise _refused(claim, f"is {kind}; to read that as a table, install polars here (shepherd-pipelines[polars])")
    if kind in {CSV, TSV}:
        separator = "\t" if kind == TSV else ""
        return csv_to_parquet(path, desk, encoding=encoding_of(path, claim), separator=separator)
    if kind == HTML:
        raise _refused(claim, "is a web page, not a table; is the address that of the file itself?")
    raise _refused(claim, f"is {kind}, which isn't read as a table; {_READABLE} are")


def _expanded(path: Path, desk: Desk) -> Path:
    target = desk.path("expanded")
    try:
        with gzip.open(path) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1024 * 1024)
    except (gzip.BadGzipFile, EOFError) as error:
        raise TaskFailedError("invalid_data", f"the data can't be expanded: {error}") from None
    return target


def _without_gz(claim: ClaimCheck) -> ClaimCheck:
    uri = claim.uri.removesuffix(".gz")
    return ClaimCheck(uri=uri, sha256=claim.sha256, size=claim.size, media_type="application/octet-stream")


def _refused(claim: ClaimCheck, reason: str) -> TaskFailedError:
    return TaskFailedError("invalid_data", f"the data {claim.uri.rpartition('/')[2]} {reason}")
