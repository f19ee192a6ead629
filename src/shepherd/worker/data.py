"""What a task may declare as its data, and how what travelled becomes it."""

import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shepherd.errors import InvalidInputError, TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.value import ClaimCheck, Inline, Value
from shepherd.worker import tables
from shepherd.worker.context import context_type
from shepherd.worker.desk import Desk
from shepherd.worker.media import JSON, PARQUET, kind_of

Decode = Callable[[Value, Desk], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataType:
    """A declared type of data."""

    #: As people write it, as in `polars.LazyFrame`.
    label: str
    #: Raises TaskFailedError `invalid_data` for what can't become it, and what a `Store` raises.
    decode: Decode


def data_type(annotation: Any) -> DataType:
    """Return how data becomes what an annotation wants.

    Raises:
        TypeError: Nothing can become it.
    """
    if annotation in (Any, object):
        return DataType(label="Any", decode=_as_it_came)
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return _optional(annotation)
    key = tables.type_key(annotation)
    if key in _FRAMES:
        return DataType(label=key, decode=_frame_decoder(key, *_FRAMES[key]))
    if key in _SIMPLE:
        return DataType(label=key.removeprefix("builtins."), decode=_SIMPLE[key])
    return _structured(annotation)


def local_path_type() -> DataType:
    """Return the seed's `data_path`: the path of a local file, or an empty string when there is no data."""
    return DataType(label="data_path", decode=_as_local_path)


def _optional(annotation: Any) -> DataType:
    inner = [argument for argument in typing.get_args(annotation) if argument is not types.NoneType]
    if len(inner) != 1 or len(inner) == len(typing.get_args(annotation)):
        return _structured(annotation)
    wanted = data_type(inner[0])

    def decode(value: Value, desk: Desk) -> Any:
        return None if value == Inline(None) else wanted.decode(value, desk)

    return DataType(label=f"{wanted.label} | None", decode=decode)


def _structured(annotation: Any) -> DataType:
    wanted = context_type(annotation)

    def decode(value: Value, desk: Desk) -> Any:
        try:
            return wanted.parse(_json(value, desk))
        except InvalidInputError as error:
            raise TaskFailedError("invalid_data", f"the data isn't what the task declares: {error}") from None

    return DataType(label=getattr(annotation, "__qualname__", str(annotation)), decode=decode)


def _frame_decoder(key: str, read: Callable[[Path, str], Any], of_records: Callable[[Any], Any]) -> Decode:
    def decode(value: Value, desk: Desk) -> Any:
        if isinstance(value, ClaimCheck):
            return read(desk.fetch(value), kind_of(value))
        if not isinstance(value.value, list | dict):
            raise _cannot(value, key)
        return of_records(value.value)

    return decode


def _as_it_came(value: Value, desk: Desk) -> Any:
    """JSON as its value, text as a string, any other data as the path of a local file."""
    if isinstance(value, Inline):
        return value.value
    if kind_of(value) == JSON:
        return _json(value, desk)
    return _as_text(value, desk) if _is_text(value) else desk.fetch(value)


def _as_text(value: Value, desk: Desk) -> str:
    if isinstance(value, Inline):
        if isinstance(value.value, str):
            return value.value
        raise _cannot(value, "str")
    try:
        return desk.read(value).decode()
    except UnicodeDecodeError as error:
        raise TaskFailedError("invalid_data", f"the data isn't UTF-8 text: {error}") from None


def _as_bytes(value: Value, desk: Desk) -> bytes:
    if isinstance(value, ClaimCheck):
        return desk.read(value)
    if value.value is None:
        raise _cannot(value, "bytes")
    return _inline_bytes(value)


def _as_path(value: Value, desk: Desk) -> Path:
    if isinstance(value, ClaimCheck):
        return desk.fetch(value)
    if value.value is None:
        raise _cannot(value, "pathlib.Path")
    return _written(value, desk)


def _as_local_path(value: Value, desk: Desk) -> str:
    if isinstance(value, Inline):
        return "" if value.value is None else str(_written(value, desk))
    path = desk.fetch(value)
    if kind_of(value) != PARQUET:
        return str(path)
    table = desk.path("data.csv")
    tables.parquet_to_csv(path, table)
    return str(table)


def _written(value: Inline, desk: Desk) -> Path:
    path = desk.path("data.txt" if isinstance(value.value, str) else "data.json")
    path.write_bytes(_inline_bytes(value))
    return path


def _inline_bytes(value: Inline) -> bytes:
    return (
        value.value.encode() if isinstance(value.value, str) else json.dumps(value.value, ensure_ascii=False).encode()
    )


def _json(value: Value, desk: Desk) -> Any:
    if isinstance(value, Inline):
        return value.value
    try:
        return strict_json.loads(desk.read(value))
    except strict_json.StrictJsonError as error:
        raise TaskFailedError("invalid_data", f"the data {error}") from None


def _is_text(claim: ClaimCheck) -> bool:
    return claim.media_type.startswith("text/plain")


def _cannot(value: Inline, wanted: str) -> TaskFailedError:
    what = "there is no data" if value.value is None else f"the data is JSON ({type(value.value).__name__})"
    return TaskFailedError("invalid_data", f"the task wants {wanted}, but {what}")


_FRAMES: Final = {
    "polars.LazyFrame": (tables.scan, tables.lazy_of_records),
    "polars.DataFrame": (tables.read_polars, tables.polars_of_records),
    "pandas.DataFrame": (tables.read_pandas, tables.pandas_of_records),
    "pyarrow.Table": (tables.read_arrow, tables.arrow_of_records),
}

_SIMPLE: Final[dict[str, Decode]] = {
    "builtins.str": _as_text,
    "builtins.bytes": _as_bytes,
    "pathlib.Path": _as_path,
    "pathlib.PurePath": _as_path,
}
