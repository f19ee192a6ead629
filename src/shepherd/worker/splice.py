"""A Parquet file out of columns of others: their bytes are copied as they lie there, neither decoded nor encoded."""

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from shepherd.worker.footer import MAGIC, raw_footer, top_level
from shepherd.worker.thrift import Array, Struct, read_struct, write_struct

_CHUNK: Final = 1024 * 1024

# https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_SCHEMA, _ROWS, _GROUPS, _CREATED_BY = 2, 3, 4, 6
_NAME, _CHILDREN = 4, 5
_CHUNKS, _GROUP_BYTES, _GROUP_ROWS, _SORTING, _GROUP_OFFSET, _GROUP_COMPRESSED = 1, 2, 3, 4, 5, 6
_CHUNK_OFFSET, _METADATA = 2, 3
_PATH, _UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY = 3, 6, 7, 9, 11
#: Of a chunk: where the indexes of its pages lie; they are left behind.
_INDEXES: Final = (4, 5, 6, 7)
#: Of its metadata: where its Bloom filter lies; left behind as well.
_BLOOM: Final = (14, 15)
#: Of a chunk: that it lies in another file, or is encrypted.
_UNFIT: Final = (1, 8, 9)
#: Thrift's number of a structure.
_STRUCT: Final = 12


class ParquetFile:
    """What a Parquet file says of itself, as far as its columns can be taken out of it.

    Raises:
        ValueError: It is none, or says it in a way that isn't understood.
        OSError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.metadata = read_struct(raw_footer(path))
            self.groups: list[Struct] = self.metadata.get(_GROUPS, [])
            self.row_counts = [int(group[_GROUP_ROWS]) for group in self.groups]
            #: For each row group its chunks by the name of the top-level column; a nested one has several.
            self.chunks = [_by_column(group) for group in self.groups]
            #: What is said of each top-level column that isn't nested, but for its name.
            self.elements = _elements(self.metadata[_SCHEMA])
            self.created_by: bytes = self.metadata.get(_CREATED_BY, b"")
        except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ValueError(f"{path.name} isn't understood as Parquet: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a new file, and where it is taken from."""

    name: str
    file: ParquetFile
    name_there: str


def write_spliced(target: Path, columns: Sequence[Column], *, like: ParquetFile) -> None:
    """Write a file of these columns, whose files have the same rows in the same row groups.

    `like` is a file without rows, with just these columns: what it says of them and of itself is said of the new one.

    Raises:
        OSError: A file can't be read or written, or has changed.
    """
    metadata, groups = like.metadata.copy(), Array(kind=_STRUCT)
    with ExitStack() as stack, target.open("wb") as file:
        opened = {path: stack.enter_context(path.open("rb", buffering=0)) for path in {c.file.path for c in columns}}
        file.write(MAGIC)
        for index, group in enumerate(columns[0].file.groups):
            chunks, begins = Array(kind=_STRUCT), file.tell()
            for column in columns:
                for chunk in column.file.chunks[index][column.name_there]:
                    chunks.append(_moved(chunk, column.name, to=file.tell()))
                    _copy(opened[column.file.path], file, start=_start(chunk), length=chunk[_METADATA][_COMPRESSED])
            groups.append(_group(group, chunks, begins))
        metadata[_GROUPS], metadata[_ROWS] = groups, sum(columns[0].file.row_counts)
        footer = write_struct(metadata)
        file.write(footer + struct.pack("<I", len(footer)) + MAGIC)


def _by_column(group: Struct) -> dict[str, list[Struct]]:
    found: dict[str, list[Struct]] = {}
    for chunk in group[_CHUNKS]:
        if any(number in chunk for number in _UNFIT):
            raise ValueError("a column lies in another file, or is encrypted")
        metadata = chunk[_METADATA]
        # What is missing is found before anything is written.
        _start(chunk), metadata[_UNCOMPRESSED], metadata[_COMPRESSED]
        found.setdefault(metadata[_PATH][0].decode(), []).append(chunk)
    return found


def _elements(schema: Sequence[Struct]) -> dict[str, dict[int, Any]]:
    return {
        element[_NAME].decode(): {number: said for number, said in element.items() if number != _NAME}
        for element in top_level(schema)
        if not element.get(_CHILDREN)
    }


def _start(chunk: Struct) -> int:
    metadata = chunk[_METADATA]
    return min(int(metadata[_DATA]), int(metadata.get(_DICTIONARY) or metadata[_DATA]))


def _moved(chunk: Struct, name: str, *, to: int) -> Struct:
    moved, metadata = chunk.copy(), chunk[_METADATA].copy()
    for number in _INDEXES:
        moved.pop(number, None)
    for number in _BLOOM:
        metadata.pop(number, None)
    for number in (_DATA, _DICTIONARY):
        if metadata.get(number):
            metadata[number] += to - _start(chunk)
    metadata[_PATH] = Array([name.encode(), *metadata[_PATH][1:]], kind=metadata[_PATH].kind)
    # The offset of a chunk is deprecated, and to be 0.
    moved[_CHUNK_OFFSET], moved[_METADATA] = 0, metadata
    return moved


def _group(group: Struct, chunks: Array, begins: int) -> Struct:
    moved, said = group.copy(), [chunk[_METADATA] for chunk in chunks]
    # It may have been sorted by a column that is no more.
    moved.pop(_SORTING, None)
    moved[_CHUNKS], moved[_GROUP_BYTES] = chunks, sum(metadata[_UNCOMPRESSED] for metadata in said)
    if _GROUP_OFFSET in moved:
        moved[_GROUP_OFFSET] = begins
    if _GROUP_COMPRESSED in moved:
        moved[_GROUP_COMPRESSED] = sum(metadata[_COMPRESSED] for metadata in said)
    return moved


def _copy(source: IO[bytes], target: IO[bytes], *, start: int, length: int) -> None:
    # Read, not mapped: mapped pages count as this process's memory.
    source.seek(start)
    left = length
    while left:
        chunk = source.read(min(left, _CHUNK))
        if not chunk:
            raise OSError(f"{source.name} ends within a column")
        target.write(chunk)
        left -= len(chunk)
