"""Data frames from files and into files; a frame library is imported only when a task's own code works with it."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shepherd.errors import TaskFailedError
from shepherd.worker.media import CSV, JSON, PARQUET

#: What pandas reads as missing too, and R writes.
_MISSING: Final = ["NA"]
#: Rows that decide a CSV column's type; of polars' own 100 the first may all be missing.
_ROWS_TO_JUDGE: Final = 10_000


def type_key(kind: Any) -> str:
    """Return `package.Class` of a type, as `polars.LazyFrame`, whichever module of the package defines it."""
    return f"{getattr(kind, '__module__', '').partition('.')[0]}.{getattr(kind, '__qualname__', '')}"


def scan(path: Path, kind: str) -> Any:
    pl = importlib.import_module("polars")
    if kind == PARQUET:
        return pl.scan_parquet(path)
    if kind == CSV:
        return pl.scan_csv(path, infer_schema_length=_ROWS_TO_JUDGE, null_values=_MISSING)
    if kind == JSON:
        return pl.read_json(path).lazy()
    raise _no_table(kind)


def read_polars(path: Path, kind: str) -> Any:
    return scan(path, kind).collect()


def read_pandas(path: Path, kind: str) -> Any:
    pd = importlib.import_module("pandas")
    if kind == PARQUET:
        return pd.read_parquet(path)
    if kind == CSV:
        return pd.read_csv(path, low_memory=False)
    if kind == JSON:
        return pd.read_json(path)
    raise _no_table(kind)


def read_arrow(path: Path, kind: str) -> Any:
    if kind == PARQUET:
        return importlib.import_module("pyarrow.parquet").read_table(path)
    if kind == CSV:
        return importlib.import_module("pyarrow.csv").read_csv(path)
    raise _no_table(kind)


def lazy_of_records(value: Any) -> Any:
    return polars_of_records(value).lazy()


def polars_of_records(value: Any) -> Any:
    return importlib.import_module("polars").DataFrame(value, infer_schema_length=None)


def pandas_of_records(value: Any) -> Any:
    return importlib.import_module("pandas").DataFrame(value)


def arrow_of_records(value: Any) -> Any:
    pa = importlib.import_module("pyarrow")
    return pa.table(value) if isinstance(value, dict) else pa.Table.from_pylist(value)


def write_lazy(frame: Any, path: Path) -> None:
    """Compute a lazy frame straight into the file, without holding all of it; the order of rows stays."""
    pl = importlib.import_module("polars")
    try:
        frame.sink_parquet(path)
    except pl.exceptions.InvalidOperationError:
        # Some plans can't be streamed by some versions; if it is the task's own fault, the same error comes again.
        frame.collect().write_parquet(path)


def write_polars(frame: Any, path: Path) -> None:
    frame.write_parquet(path)


def write_pandas(frame: Any, path: Path) -> None:
    frame.to_parquet(path, engine="pyarrow")


def write_arrow(table: Any, path: Path) -> None:
    importlib.import_module("pyarrow.parquet").write_table(table, path)


#: How a returned frame becomes a Parquet file.
WRITERS: Final[dict[str, Callable[[Any, Path], None]]] = {
    "polars.LazyFrame": write_lazy,
    "polars.DataFrame": write_polars,
    "pandas.DataFrame": write_pandas,
    "pyarrow.Table": write_arrow,
}


def parquet_to_csv(source: Path, target: Path) -> None:
    """Rewrite a table for a task that takes a path, with whichever library this server has.

    Raises:
        TaskFailedError: It has none.
    """
    if importlib.util.find_spec("polars"):
        scan(source, PARQUET).sink_csv(target)
    elif importlib.util.find_spec("pyarrow"):
        importlib.import_module("pyarrow.csv").write_csv(read_arrow(source, PARQUET), target)
    else:
        raise TaskFailedError("invalid_data", "the data is a table; to get it as CSV, install polars or pyarrow here")


def _no_table(kind: str) -> TaskFailedError:
    return TaskFailedError("invalid_data", f"the data is {kind}, which can't be read as a table")
