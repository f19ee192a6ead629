"""A store that refuses what holds a secret: read in a stream before anything of it is kept."""

import gzip
import importlib
import importlib.util
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from shepherd.errors import TaskFailedError
from shepherd.store.port import Store, StoredObject
from shepherd.wire.value import ClaimCheck
from shepherd.worker.mask import Mask

_CHUNK: Final = 1024 * 1024
#: What pyarrow calls the types that hold texts; older versions lack the last two.
_TEXTS: Final = (
    *("is_string", "is_large_string", "is_binary", "is_large_binary", "is_fixed_size_binary"),
    *("is_string_view", "is_binary_view"),
)
#: What comes of reading what only looks as if it were packed; `NotImplementedError` is zipfile's word for a kind of
#: compression that it doesn't know.
_NOT_PACKED: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, OSError, EOFError, RuntimeError, NotImplementedError),
)
#: Rows of a table that are looked at together.
_ROWS: Final = 64 * 1024


class GuardedStore:
    """A `Store` in front of another one."""

    def __init__(self, store: Store, mask: Mask, *, is_needed: Callable[[], bool]) -> None:
        self._store = store
        self._mask = mask
        self._is_needed = is_needed

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, source: Path | bytes, *, key: str, media_type: str, is_given_up: bool = False) -> ClaimCheck:
        """Do as the store does, or raise TaskFailedError `secret_in_result`."""
        if self._is_needed() and (name := find_secret(source, key, self._mask)):
            raise secret_in_result(name)
        return self._store.put(source, key=key, media_type=media_type, is_given_up=is_given_up)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        return self._store.fetch(claim, into=into)

    def read(self, claim: ClaimCheck) -> bytes:
        return self._store.read(claim)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._store.list(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        self._store.delete(keys)

    def check(self) -> None:
        self._store.check()


def secret_in_result(name: str) -> TaskFailedError:
    message = f"what the task returned holds the secret {name!r}; nothing of it was kept"
    return TaskFailedError("secret_in_result", message)


def find_secret(source: Path | bytes, key: str, mask: Mask) -> str | None:
    """Return the name of a secret in what is to be kept: in its bytes, its name, or, one level deep, what is packed."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        if name := mask.find([key.encode()]) or mask.find(_pieces(file)):
            return name
        file.seek(0)
        begins = file.read(4)
        file.seek(0)
        return mask.find(_unpacked(file, begins))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _unpacked(file: IO[bytes], begins: bytes) -> Iterator[bytes]:
    try:
        if begins == b"PAR1":
            yield from _texts_of_table(file)
        elif begins[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield from _pieces(unpacked)  # type: ignore[arg-type]
        elif begins == b"PK\x03\x04":
            yield from _members(file)
    except _NOT_PACKED:
        # It only looks as if it were packed, or is locked: its bytes as they are were looked at before.
        return


def _members(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a zip file, or a workbook, holds."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as unpacked:
                yield from _pieces(unpacked)


def _texts_of_table(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the texts of a Parquet file, which are compressed and in dictionaries there."""
    if _has_arrow():
        yield from _texts_by_arrow(importlib.import_module("pyarrow.parquet").ParquetFile(file))
    else:
        pl = importlib.import_module("polars")
        with suppress(pl.exceptions.PolarsError):
            yield from _texts_by_polars(pl, file)


def _has_arrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def _texts_by_arrow(table: Any) -> Iterator[bytes]:
    names = [field.name for field in table.schema_arrow if _holds_text(field.type)]
    if not names:
        return
    for batch in table.iter_batches(batch_size=_ROWS, columns=names):
        for column in batch.columns:
            yield from _buffers(column)
            # What ends one column begins no other.
            yield b"\0"


def _holds_text(kind: Any) -> bool:
    types = importlib.import_module("pyarrow.types")
    if types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if kind.num_fields:
        return any(_holds_text(kind.field(number).type) for number in range(kind.num_fields))
    return any(getattr(types, name)(kind) for name in _TEXTS if hasattr(types, name))


def _buffers(column: Any) -> Iterator[bytes]:
    """Yield the memory in which an array keeps its texts, those of one after those of another."""
    dictionary = getattr(column, "dictionary", None)
    for buffer in [*column.buffers(), *(dictionary.buffers() if dictionary is not None else [])]:
        if buffer is not None:
            yield from (bytes(buffer[start : start + _CHUNK]) for start in range(0, buffer.size, _CHUNK))


def _texts_by_polars(pl: Any, file: IO[bytes]) -> Iterator[bytes]:
    source = file.read() if isinstance(file, io.BytesIO) else Path(file.name)
    frame = pl.scan_parquet(io.BytesIO(source) if isinstance(source, bytes) else source)
    schema = frame.collect_schema()
    names = [name for name, kind in schema.items() if not kind.is_numeric() and not kind.is_temporal()]
    if not names:
        return
    start = 0
    while (rows := frame.select(names).slice(start, _ROWS).collect()).height:
        start += _ROWS
        binary = [name for name in names if schema[name] == pl.Binary]
        yield rows.drop(binary).write_ndjson().encode()
        for name in binary:
            yield from (value for value in rows[name] if value is not None)
