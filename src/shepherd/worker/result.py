"""What a task may return, and how it travels on."""

from pathlib import Path
from typing import Any, Final

import msgspec

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.value import INLINE_LIMIT, NOTHING, Inline, Value
from shepherd.worker import tables
from shepherd.worker.desk import Desk
from shepherd.worker.media import BYTES, JSON, PARQUET, TEXT, media_type_of

_RULE: Final = "a task returns None, JSON, str, bytes, pathlib.Path or a data frame of polars, pandas or pyarrow"


def encode(returned: Any, desk: Desk, *, is_by_path: bool = False) -> Value:
    """Return what travels for what a task returned; whatever is large is left in the store.

    A lazy frame is computed here, so anything that its plan raises comes out of this too.

    Raises:
        TaskFailedError: `invalid_result`: nothing can travel for this; the text says what may be returned.
        StoreUnavailableError: The store didn't take it.
    """
    if returned is None:
        return NOTHING
    if isinstance(returned, str):
        is_file = is_by_path and _names_file(returned)
        return _file(Path(returned), desk) if is_file else _text(returned, desk)
    if isinstance(returned, Path):
        return _file(returned, desk)
    if isinstance(returned, bytes | bytearray | memoryview):
        return desk.put(bytes(returned), name="result.bin", media_type=BYTES)
    writer = tables.WRITERS.get(tables.type_key(type(returned)))
    if writer is None:
        return _json(returned, desk)
    path = desk.path("result.parquet")
    writer(returned, path)
    return desk.put(path, name=path.name, media_type=PARQUET)


def _names_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (ValueError, OSError):
        return False


def _file(path: Path, desk: Desk) -> Value:
    if not path.is_file():
        what = "is a folder; return one file" if path.is_dir() else "names no file here"
        raise TaskFailedError("invalid_result", f"the returned path {path} {what}")
    return desk.put(path, name=path.name, media_type=media_type_of(path.name))


def _text(text: str, desk: Desk) -> Value:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise TaskFailedError("invalid_result", f"the returned text holds what is no character: {error}") from None
    if len(encoded) <= INLINE_LIMIT:
        return Inline(text)
    return desk.put(encoded, name="result.txt", media_type=TEXT)


def _json(returned: Any, desk: Desk) -> Value:
    # True, small numbers: what can't go wrong needs no proof.
    if isinstance(returned, bool):
        return Inline(returned)
    try:
        encoded = _dumps(returned)
        document = strict_json.loads(encoded)
    except strict_json.StrictJsonError as error:
        raise TaskFailedError("invalid_result", f"the returned value {error}") from None
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        kind = type(returned).__qualname__
        raise TaskFailedError("invalid_result", f"the returned {kind} can't travel: {error}; {_RULE}") from None
    if len(encoded) <= INLINE_LIMIT:
        return Inline(document)
    return desk.put(encoded.encode(), name="result.json", media_type=JSON)


def _dumps(value: Any) -> str:
    try:
        return strict_json.dumps(value)
    except TypeError:
        # Dataclasses, times, UUIDs, sets, NumPy's numbers: what has one obvious form in JSON gets it.
        return strict_json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__qualname__} has no form in JSON")
