"""What a task may return, and how it travels on."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.document import DOCUMENT, Fields, Items, Node, to_document
from shepherd.wire.media import BYTES, FOLDER, JSON, PARQUET, TEXT, media_type_of
from shepherd.wire.value import INLINE_LIMIT, NOTHING, Inline, Value
from shepherd.worker import folders, tables
from shepherd.worker.desk import Desk
from shepherd.worker.untouched import write_with_untouched

logger = logging.getLogger(__name__)

_RULE: Final = (
    "a task returns None, JSON, str, bytes, pathlib.Path, a data frame of polars, pandas or pyarrow, "
    "or a list or dict of these"
)
#: What these write is computed only then, by the task's own code: what that raises is its own.
_COMPUTING: Final = {tables.write_lazy, tables.write_arrow_stream}
#: Each level of a list or dict takes two of the hundred that a JSON document may have.
_DEEPEST: Final = 40


def encode(returned: Any, desk: Desk, *, is_by_path: bool = False) -> Value:
    """Return what travels for what a task returned; whatever is large is left in the store.

    A lazy frame is computed here, so anything that its plan raises comes out of this too.

    Raises:
        TaskFailedError: `invalid_result`: nothing can travel for this; the text says what may be returned.
        StoreUnavailableError: The store didn't take it.
    """
    if is_by_path and isinstance(returned, str) and _names_file(returned):
        return _file(Path(returned), desk)
    if isinstance(returned, str) and returned.startswith("/") and _names_file(returned):
        logger.warning("the text %s was returned, not the file; return pathlib.Path to hand the file on", returned)
    node = _node(returned, desk, name="result")
    if isinstance(node, Fields | Items):
        return desk.put(to_document(node), name="result.json", media_type=DOCUMENT)
    return node


def _node(returned: Any, desk: Desk, *, name: str, depth: int = 0) -> Node:
    if returned is None:
        return NOTHING
    if isinstance(returned, str):
        return _text(returned, desk, name=name)
    if isinstance(returned, Path):
        return _file(returned, desk)
    if isinstance(returned, bytes | bytearray | memoryview):
        return desk.put(bytes(returned), name=f"{name}.bin", media_type=BYTES)
    writer = tables.writer_of(returned)
    if writer is not None:
        return _table(returned, desk, writer=writer, name=name)
    return _compound(returned, desk, name=name, depth=depth)


def _table(returned: Any, desk: Desk, *, writer: tables.Writer, name: str) -> Value:
    path = desk.path("result.parquet")
    if writer is not tables.write_lazy or not write_with_untouched(returned, path, inputs=desk.tables()):
        _write(returned, path, writer)
    claim = desk.put(path, name=f"{name}.parquet", media_type=PARQUET, is_given_up=True)
    desk.discard(path)
    return claim


def _write(returned: Any, path: Path, writer: tables.Writer) -> None:
    try:
        writer(returned, path)
    except (ValueError, TypeError) as error:
        if writer in _COMPUTING:
            raise
        kind, reason = tables.type_key(type(returned)), "; ".join(map(str, error.args))
        raise TaskFailedError("invalid_result", f"the returned {kind} can't travel: {reason}") from error


def _names_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (ValueError, OSError):
        return False


def _file(path: Path, desk: Desk) -> Value:
    if path.is_dir():
        tar = desk.path("folder.tar")
        folders.pack(path, tar)
        name = f"{path.resolve().name or 'folder'}.tar"
        claim = desk.put(tar, name=name, media_type=FOLDER, is_given_up=True)
        desk.discard(tar)
        return claim
    if not path.is_file():
        raise TaskFailedError("invalid_result", f"the returned path {path} names no file here")
    return desk.put(path, name=path.name, media_type=media_type_of(path.name))


def _text(text: str, desk: Desk, *, name: str) -> Value:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise TaskFailedError("invalid_result", f"the returned text holds what is no character: {error}") from None
    if len(encoded) <= INLINE_LIMIT:
        return Inline(text)
    return desk.put(encoded, name=f"{name}.txt", media_type=TEXT)


def _compound(returned: Any, desk: Desk, *, name: str, depth: int) -> Node:
    # True, small numbers: what can't go wrong needs no proof.
    if isinstance(returned, bool):
        return Inline(returned)
    try:
        try:
            encoded = strict_json.dumps(returned)
        except TypeError:
            # Only now, since looking into a long list costs more than writing it.
            if _holds_more_than_json(returned):
                return _parts(returned, desk, name=name, depth=depth)
            # Dataclasses, times, UUIDs, sets, NumPy's numbers: what has one obvious form in JSON gets it.
            encoded = strict_json.dumps(msgspec.to_builtins(returned, str_keys=True, enc_hook=_plain))
        document = strict_json.loads(encoded)
    except strict_json.StrictJsonError as error:
        raise TaskFailedError("invalid_result", f"the returned value {error}") from None
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        kind = type(returned).__qualname__
        raise TaskFailedError("invalid_result", f"the returned {kind} can't travel: {error}; {_RULE}") from None
    if len(encoded) <= INLINE_LIMIT:
        return Inline(document)
    return desk.put(encoded.encode(), name=f"{name}.json", media_type=JSON)


def _parts(returned: Any, desk: Desk, *, name: str, depth: int) -> Fields | Items:
    if depth >= _DEEPEST:
        raise TaskFailedError("invalid_result", f"the returned value is nested more than {_DEEPEST} levels deep")
    inside = "" if depth == 0 else f"{name}."
    fields = _fields(returned)
    if fields is None:
        parts = [_node(part, desk, name=f"{inside}{at}", depth=depth + 1) for at, part in enumerate(returned)]
        return Items(parts)
    for key in fields:
        if not isinstance(key, str):
            raise TaskFailedError("invalid_result", f"the returned dict has the key {key!r}; names must be strings")
    return Fields({key: _node(part, desk, name=f"{inside}{key}", depth=depth + 1) for key, part in fields.items()})


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Return the named parts of a value, None if it hasn't such."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value._asdict() if hasattr(value, "_asdict") else None


def _holds_more_than_json(value: Any) -> bool:
    if isinstance(value, bytes | bytearray | memoryview | Path) or tables.writer_of(value) is not None:
        return True
    return any(_holds_more_than_json(part) for part in _inside(value))


def _inside(value: Any) -> Iterator[Any]:
    fields = _fields(value)
    if fields is not None:
        yield from fields.values()
    elif isinstance(value, list | tuple):
        yield from value


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__qualname__} has no form in JSON")
