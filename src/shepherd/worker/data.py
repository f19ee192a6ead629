"""What a task may declare as its data, and how what travelled becomes it."""

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from shepherd.errors import InvalidInputError, ProtocolError, TaskFailedError
from shepherd.wire.document import DOCUMENT, Fields, Items, Node, parse_document
from shepherd.wire.media import kind_of
from shepherd.wire.value import ClaimCheck, Inline, Value
from shepherd.worker import tables
from shepherd.worker.context import context_type
from shepherd.worker.desk import Desk
from shepherd.worker.leaves import (
    Decode,
    as_bytes,
    as_it_came,
    as_local_path,
    as_path,
    as_text,
    cannot,
    frame_decoder,
    json_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataType:
    """A declared type of data."""

    #: As people write it, as in `polars.LazyFrame`.
    label: str
    #: Raises TaskFailedError `invalid_data` for what can't become it, and what a `Store` raises.
    decode: Callable[[Value, Desk], Any]
    #: What comes out reads its file later: it is worth nothing when the desk is gone.
    is_bound_to_files: bool = False


def data_type(annotation: Any) -> DataType:
    """Return how data becomes what an annotation wants.

    Raises:
        TypeError: Nothing can become it.
    """
    return _opening(*_decoder(annotation), is_bound_to_files=_mentions(annotation, _BOUND_TO_FILES))


def local_path_type() -> DataType:
    """Return the seed's `data_path`: the path of a local file, or an empty string when there is no data."""
    return _opening("data_path", as_local_path, is_bound_to_files=True)


def _opening(label: str, inner: Decode, *, is_bound_to_files: bool) -> DataType:
    def decode(value: Value, desk: Desk) -> Any:
        return inner(_opened(value, desk), desk)

    return DataType(label=label, decode=decode, is_bound_to_files=is_bound_to_files)


def _opened(value: Value, desk: Desk) -> Node:
    if not isinstance(value, ClaimCheck) or kind_of(value) != DOCUMENT:
        return value
    try:
        return parse_document(desk.read(value))
    except ProtocolError as error:
        raise TaskFailedError("invalid_data", str(error)) from None


def _decoder(annotation: Any) -> tuple[str, Decode]:
    annotation = _bare(annotation)
    if annotation in (Any, object):
        return "Any", as_it_came
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return _optional(annotation)
    key = tables.type_key(annotation)
    if key in _FRAMES:
        return key, frame_decoder(key, *_FRAMES[key])
    if annotation in _SIMPLE:
        return key.removeprefix("builtins."), _SIMPLE[annotation]
    if _mentions(annotation, _FILES) and (several := _several(annotation)):
        return _label(annotation), several
    return _json(annotation)


def _bare(annotation: Any) -> Any:
    while typing.get_origin(annotation) in {typing.Annotated, typing.Required, typing.NotRequired}:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _optional(annotation: Any) -> tuple[str, Decode]:
    inner = [argument for argument in typing.get_args(annotation) if argument is not types.NoneType]
    if len(inner) != 1 or len(inner) == len(typing.get_args(annotation)):
        return _json(annotation)
    label, wanted = _decoder(inner[0])

    def decode(node: Node, desk: Desk) -> Any:
        return None if node == Inline(None) else wanted(node, desk)

    return f"{label} | None", decode


def _json(annotation: Any) -> tuple[str, Decode]:
    wanted, label, origin = context_type(annotation), _label(annotation), typing.get_origin(annotation) or annotation

    def decode(node: Node, desk: Desk) -> Any:
        if isinstance(node, Fields) and origin in _MAPPINGS and _takes_anything(annotation):
            return as_it_came(node, desk)
        if isinstance(node, Items) and origin in _SEQUENCES and _takes_anything(annotation):
            return as_it_came(node, desk)
        value = json_of(node, desk, wanted=label)
        if origin in _MAPPINGS and not isinstance(value, dict):
            raise cannot(node, label)
        try:
            return wanted.parse(value)
        except InvalidInputError as error:
            raise TaskFailedError("invalid_data", f"the data isn't what the task declares: {error}") from None

    return label, decode


def _takes_anything(annotation: Any) -> bool:
    return all(argument in (Any, object, str, ...) for argument in typing.get_args(annotation)[:1]) and all(
        argument in (Any, object) for argument in typing.get_args(annotation)[1:]
    )


def _several(annotation: Any) -> Decode | None:
    """Return what makes a type of parts, at least one of which isn't JSON; None if it is no such type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _MAPPINGS and len(arguments) == 2 and arguments[0] is str:
        return _named(_label(annotation), _decoder(arguments[1])[1])
    if origin is list or origin is collections.abc.Sequence:
        return _listed(_label(annotation), _decoder(arguments[0])[1])
    if typing.is_typeddict(annotation):
        return _with_fields(annotation, make=dict, optional=annotation.__optional_keys__)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        fields = [field for field in dataclasses.fields(annotation) if field.init]
        missing = dataclasses.MISSING
        has_default = {f.name for f in fields if f.default is not missing or f.default_factory is not missing}
        return _with_fields(annotation, make=annotation, optional=has_default, names=[field.name for field in fields])
    return None


def _named(label: str, part: Decode) -> Decode:
    def decode(node: Node, desk: Desk) -> dict[str, Any]:
        fields = _fields(node, desk, label=label)
        return {name: _part(part, fields[name], desk, at=name) for name in fields}

    return decode


def _listed(label: str, part: Decode) -> Decode:
    def decode(node: Node, desk: Desk) -> list[Any]:
        if isinstance(node, Items):
            parts = list(node.parts)
        else:
            value = json_of(node, desk, wanted=label)
            if not isinstance(value, list):
                raise cannot(node, label)
            parts = [Inline(item) for item in value]
        return [_part(part, item, desk, at=f"[{index}]") for index, item in enumerate(parts)]

    return decode


def _with_fields(
    annotation: Any, *, make: Callable[..., Any], optional: collections.abc.Set[str], names: list[str] | None = None
) -> Decode:
    label, hints = _label(annotation), typing.get_type_hints(annotation, include_extras=True)
    parts = {name: _decoder(hints[name])[1] for name in names or hints}

    def decode(node: Node, desk: Desk) -> Any:
        fields = _fields(node, desk, label=label)
        for what, odd in (("lacks", parts.keys() - fields.keys() - optional), ("has", fields.keys() - parts.keys())):
            if odd:
                known = f"{label} has {', '.join(parts)}"
                raise TaskFailedError("invalid_data", f"the data {what} {', '.join(sorted(odd))}; {known}")
        return make(**{name: _part(parts[name], part, desk, at=name) for name, part in fields.items()})

    return decode


def _fields(node: Node, desk: Desk, *, label: str) -> Mapping[str, Node]:
    if isinstance(node, Fields):
        return node.parts
    value = json_of(node, desk, wanted=label)
    if not isinstance(value, dict):
        raise cannot(node, label)
    return {name: Inline(part) for name, part in value.items()}


def _part(decode: Decode, node: Node, desk: Desk, *, at: str) -> Any:
    try:
        return decode(node, desk)
    except TaskFailedError as error:
        raise TaskFailedError(error.code, f"{at}: {error.message}") from error


def _mentions(annotation: Any, keys: collections.abc.Set[str], seen: tuple[Any, ...] = ()) -> bool:
    """Return whether a type of one of these keys stands anywhere in an annotation."""
    annotation = _bare(annotation)
    if tables.type_key(annotation) in keys:
        return True
    inside = list(typing.get_args(annotation))
    if (typing.is_typeddict(annotation) or dataclasses.is_dataclass(annotation)) and annotation not in seen:
        inside += typing.get_type_hints(annotation, include_extras=True).values()
    return any(_mentions(argument, keys, (*seen, annotation)) for argument in inside)


def _label(annotation: Any) -> str:
    if typing.get_origin(annotation) is None:
        return str(getattr(annotation, "__qualname__", annotation))
    origin = getattr(typing.get_origin(annotation), "__qualname__", str(annotation))
    arguments = ", ".join(_decoder_label(argument) for argument in typing.get_args(annotation))
    return f"{origin}[{arguments}]"


def _decoder_label(annotation: Any) -> str:
    key = tables.type_key(_bare(annotation))
    return key if key in _FRAMES else _label(annotation)


_FRAMES: Final = {
    "polars.LazyFrame": (tables.scan, tables.lazy_of_records),
    "polars.DataFrame": (tables.read_polars, tables.polars_of_records),
    "pandas.DataFrame": (tables.read_pandas, tables.pandas_of_records),
    "pyarrow.Table": (tables.read_arrow, tables.arrow_of_records),
    "pyarrow.RecordBatchReader": (tables.stream_arrow, tables.arrow_stream_of_records),
}
_SIMPLE: Final[dict[Any, Decode]] = {str: as_text, bytes: as_bytes, Path: as_path, PurePath: as_path}
_MAPPINGS: Final = (dict, Mapping)
_SEQUENCES: Final = (list, collections.abc.Sequence)
_PATHS: Final = {"pathlib.Path", "pathlib.PurePath"}
_FILES: Final = {*_FRAMES, *_PATHS, "builtins.bytes"}
_BOUND_TO_FILES: Final = {*_PATHS, "polars.LazyFrame", "pyarrow.RecordBatchReader"}
