"""How what travelled becomes one value: text, bytes, a path, a frame, or itself."""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.document import Fields, Items, Node
from shepherd.wire.media import FOLDER, JSON, PARQUET, kind_of
from shepherd.wire.value import ClaimCheck, Inline
from shepherd.worker import folders, tables
from shepherd.worker.desk import Desk
from shepherd.worker.json_tables import table_of
from shepherd.worker.tabulate import as_parquet

#: Raises TaskFailedError `invalid_data` for what can't become it, and what a `Store` raises.
Decode = Callable[[Node, Desk], Any]


def as_it_came(node: Node, desk: Desk) -> Any:
    """JSON as its value, text as a string, any other data as the path of a local file or folder."""
    if isinstance(node, Fields):
        return {name: as_it_came(part, desk) for name, part in node.parts.items()}
    if isinstance(node, Items):
        return [as_it_came(part, desk) for part in node.parts]
    if isinstance(node, Inline) or kind_of(node) == JSON:
        return json_of(node, desk, wanted="Any")
    return as_text(node, desk) if node.media_type.startswith("text/plain") else as_path(node, desk)


def as_text(node: Node, desk: Desk) -> str:
    if isinstance(node, Inline) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ClaimCheck) or kind_of(node) == FOLDER:
        raise cannot(node, "str")
    try:
        return desk.read(node).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskFailedError("invalid_data", f"{cannot(node, 'str')}: it isn't UTF-8 text: {error}") from None


def as_bytes(node: Node, desk: Desk) -> bytes:
    if isinstance(node, ClaimCheck):
        return desk.read(node)
    if isinstance(node, Inline) and node.value is not None:
        return _inline_bytes(node)
    raise cannot(node, "bytes")


def as_path(node: Node, desk: Desk) -> Path:
    if isinstance(node, ClaimCheck):
        return _unpacked(node, desk.fetch(node), desk) if kind_of(node) == FOLDER else desk.own(node)
    if isinstance(node, Inline) and node.value is not None:
        return _written(node, desk)
    raise cannot(node, "pathlib.Path")


def as_local_path(node: Node, desk: Desk) -> str:
    """The seed's `data_path`: a table as CSV, JSON as itself, several values as JSON that has paths in it."""
    if node == Inline(None):
        return ""
    if isinstance(node, Fields | Items):
        return str(_written(Inline(_with_paths(node, desk)), desk))
    if not isinstance(node, ClaimCheck) or kind_of(node) != PARQUET:
        return str(as_path(node, desk))
    table = desk.path("data.csv")
    tables.parquet_to_csv(desk.fetch(node), table)
    return str(table)


def frame_decoder(label: str, read: Callable[[Path], Any], of_records: Callable[[Any], Any]) -> Decode:
    def decode(node: Node, desk: Desk) -> Any:
        if isinstance(node, ClaimCheck):
            return read(as_parquet(desk.fetch(node), node, desk))
        if not isinstance(node, Inline) or not isinstance(node.value, list | dict):
            raise cannot(node, label)
        try:
            return of_records(table_of(node.value))
        except Exception as error:
            raise TaskFailedError("invalid_data", f"{cannot(node, label)}: as a table, {error}") from error

    return decode


def json_of(node: Node, desk: Desk, *, wanted: str) -> Any:
    if isinstance(node, Inline):
        return node.value
    if not isinstance(node, ClaimCheck) or not _may_be_json(node):
        raise cannot(node, wanted)
    try:
        return strict_json.loads(desk.read(node))
    except strict_json.StrictJsonError as error:
        raise TaskFailedError("invalid_data", f"{cannot(node, wanted)}: as JSON it {error}") from None


def cannot(node: Node, wanted: str) -> TaskFailedError:
    """Return the error that says what came, what was wanted, and what would work."""
    return TaskFailedError("invalid_data", f"the task wants {wanted}, but {_what(node)}")


def _what(node: Node) -> str:
    if isinstance(node, Fields):
        names = ", ".join(list(node.parts)[:10])
        return (
            f"the data is several values with names ({names}); declare dict, dict[str, …], a TypedDict or a dataclass"
        )
    if isinstance(node, Items):
        return f"the data is a list of {len(node.parts)} values; declare list, list[…] or Any"
    if isinstance(node, Inline):
        if node.value is None:
            return "there is no data; add `| None` if there may be none"
        kind = type(node.value).__name__
        return f"the data is JSON ({kind}); declare {kind}, Any or pathlib.Path"
    name = PurePosixPath(node.uri).name
    if kind_of(node) == FOLDER:
        return f"the data is a folder ({name}); declare pathlib.Path"
    frame = "a data frame, " if kind_of(node) == PARQUET else ""
    return f"the data is the file {name} ({node.media_type}); declare {frame}pathlib.Path or bytes"


def _may_be_json(claim: ClaimCheck) -> bool:
    kind = kind_of(claim)
    return kind == JSON or kind.endswith("+json") or kind in _SAYS_NOTHING


_SAYS_NOTHING: Final = {"application/octet-stream", "text/plain", "text/json", "application/javascript"}


def _unpacked(claim: ClaimCheck, tar: Path, desk: Desk) -> Path:
    folder = desk.path(PurePosixPath(claim.uri).stem)
    folder.mkdir()
    return folders.unpack(tar, folder)


def _with_paths(node: Node, desk: Desk) -> Any:
    if isinstance(node, Fields):
        return {name: _with_paths(part, desk) for name, part in node.parts.items()}
    if isinstance(node, Items):
        return [_with_paths(part, desk) for part in node.parts]
    return node.value if isinstance(node, Inline) else as_local_path(node, desk)


def _written(node: Inline, desk: Desk) -> Path:
    path = desk.path("data.txt" if isinstance(node.value, str) else "data.json")
    path.write_bytes(_inline_bytes(node))
    return path


def _inline_bytes(node: Inline) -> bytes:
    if isinstance(node.value, str):
        return node.value.encode()
    return json.dumps(node.value, ensure_ascii=False).encode()
