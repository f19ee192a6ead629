"""Data frames from Parquet files and into them; a library is imported only when a task's own code works with it."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shepherd.errors import TaskFailedError

#: Half the size of `uncompressed` for 6% more CPU, which the store's checksums and copies give back (measured on
#: 310 MB of flights). Statistics are on in all three libraries.
_COMPRESSION: Final = "zstd"
_LEVEL: Final = 1
#: Rows that are encoded at once, and so held; the same in all files, so that columns can go from one into another.
_GROUP_ROWS: Final = 128 * 1024
#: How pandas calls an index without a name in Parquet.
_UNNAMED_INDEX: Final = re.compile(r"__index_level_\d+__")

Writer = Callable[[Any, Path], None]


def type_key(kind: Any) -> str:
    """Return `package.Class` of a type, as `polars.LazyFrame`, whichever module of the package defines it."""
    return f"{getattr(kind, '__module__', '').partition('.')[0]}.{getattr(kind, '__qualname__', '')}"


def writer_of(value: Any) -> Writer | None:
    """Return what writes a frame or table, of these types or derived from them, into a Parquet file."""
    return next((_WRITERS[key] for key in map(type_key, type(value).__mro__) if key in _WRITERS), None)


def is_unnamed_index(column: str) -> bool:
    """Tell whether a column of a Parquet file is an index of pandas without a name, which nobody else sees."""
    return _UNNAMED_INDEX.fullmatch(column) is not None


def scan(path: Path) -> Any:
    pl = importlib.import_module("polars")
    frame = pl.scan_parquet(path)
    unnamed = [name for name in frame.collect_schema() if is_unnamed_index(name)]
    return frame.drop(unnamed) if unnamed else frame


def rows_of(frame: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a polars frame; times that Python can't hold, as those after the year 9999, as text."""
    try:
        return list(frame.rows())
    except (ValueError, OverflowError):
        pl = importlib.import_module("polars")
        return list(frame.with_columns((pl.selectors.date() | pl.selectors.datetime()).cast(pl.String)).rows())


def read_polars(path: Path) -> Any:
    return scan(path).collect()


def read_pandas(path: Path) -> Any:
    return importlib.import_module("pandas").read_parquet(path)


def read_arrow(path: Path) -> Any:
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    return table.drop_columns([name for name in table.column_names if is_unnamed_index(name)])


def stream_arrow(path: Path) -> Any:
    pa = importlib.import_module("pyarrow")
    file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
    names = [name for name in file.schema_arrow.names if not is_unnamed_index(name)]
    schema = pa.schema([file.schema_arrow.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, file.iter_batches(columns=names))


def lazy_of_records(value: Any) -> Any:
    return polars_of_records(value).lazy()


def polars_of_records(value: Any) -> Any:
    return importlib.import_module("polars").DataFrame(value, infer_schema_length=None)


def pandas_of_records(value: Any) -> Any:
    return importlib.import_module("pandas").DataFrame(value)


def arrow_of_records(value: Any) -> Any:
    pa = importlib.import_module("pyarrow")
    if isinstance(value, dict):
        return pa.table(value)
    # pyarrow takes the names of the first record for those of all.
    names = dict.fromkeys(name for record in value for name in record)
    return pa.table({name: [record.get(name) for record in value] for name in names})


def arrow_stream_of_records(value: Any) -> Any:
    return arrow_of_records(value).to_reader()


def write_lazy(frame: Any, path: Path, *, group_rows: int = _GROUP_ROWS) -> None:
    """Compute a lazy frame straight into the file, without holding all of it; the order of rows stays."""
    pl = importlib.import_module("polars")
    try:
        sink_lazy(frame, path, group_rows=group_rows)
    except pl.exceptions.InvalidOperationError:
        # Some plans can't be streamed by some versions; if it is the task's own fault, the same error comes again.
        write_polars(frame.collect(), path, group_rows=group_rows)


def sink_lazy(frame: Any, path: Path, *, group_rows: int = _GROUP_ROWS) -> None:
    """As `write_lazy`, for plans that are known to stream: what fails fails at once, and is never held."""
    frame.sink_parquet(
        path, compression=_COMPRESSION, compression_level=_LEVEL, row_group_size=group_rows, maintain_order=True
    )


def write_polars(frame: Any, path: Path, *, group_rows: int = _GROUP_ROWS) -> None:
    frame.write_parquet(path, compression=_COMPRESSION, compression_level=_LEVEL, row_group_size=group_rows)


def write_pandas(frame: Any, path: Path) -> None:
    frame.to_parquet(path, engine="pyarrow", compression=_COMPRESSION, compression_level=_LEVEL)


def write_arrow(table: Any, path: Path) -> None:
    importlib.import_module("pyarrow.parquet").write_table(
        table, path, compression=_COMPRESSION, compression_level=_LEVEL
    )


def write_arrow_batch(batch: Any, path: Path) -> None:
    write_arrow(importlib.import_module("pyarrow").Table.from_batches([batch]), path)


def write_arrow_stream(reader: Any, path: Path) -> None:
    parquet = importlib.import_module("pyarrow.parquet")
    with parquet.ParquetWriter(path, reader.schema, compression=_COMPRESSION, compression_level=_LEVEL) as writer:
        for batch in reader:
            writer.write_batch(batch)


_WRITERS: Final[dict[str, Writer]] = {
    "polars.LazyFrame": write_lazy,
    "polars.DataFrame": write_polars,
    "pandas.DataFrame": write_pandas,
    "pyarrow.Table": write_arrow,
    "pyarrow.RecordBatch": write_arrow_batch,
    "pyarrow.RecordBatchReader": write_arrow_stream,
}


def parquet_to_csv(source: Path, target: Path) -> None:
    """Rewrite a table for a task that takes a path, with whichever library this server has.

    Raises:
        TaskFailedError: It has none, or a column holds what CSV can't say.
    """
    if importlib.util.find_spec("polars"):
        _as_text(scan(source)).sink_csv(target)
    elif importlib.util.find_spec("pyarrow"):
        importlib.import_module("pyarrow.csv").write_csv(read_arrow(source), target)
    else:
        raise TaskFailedError("invalid_data", "the data is a table; to get it as CSV, install polars or pyarrow here")


def seconds(column: str) -> Any:
    """Return polars' expression of a column of durations in seconds: CSV has no form for them."""
    return importlib.import_module("polars").col(column).dt.total_nanoseconds() / 1e9


def _as_text(frame: Any) -> Any:
    """Write times as they are read from CSV: in UTC with its letter, or without any zone."""
    pl = importlib.import_module("polars")
    schema = frame.collect_schema()
    if nested := [name for name, dtype in schema.items() if dtype.is_nested() or dtype in {pl.Binary, pl.Object}]:
        raise TaskFailedError(
            "invalid_data", f"the data can't be written as CSV: {', '.join(nested)} hold no plain values"
        )
    times = {name: dtype for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)}
    return frame.with_columns(seconds(name) for name, dtype in schema.items() if dtype == pl.Duration).with_columns(
        pl.col(name).dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ")
        if dtype.time_zone
        else pl.col(name).dt.to_string("%Y-%m-%d %H:%M:%S%.f")
        for name, dtype in times.items()
    )
