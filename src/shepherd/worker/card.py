"""What a result is, in a few lines for people: written by the worker beside the result, from what lies at hand.

Bounded in cost: of a table its footer and its first rows are read, of a large text or document its beginning.
"""

import itertools
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shepherd.errors import TaskFailedError
from shepherd.wire import strict_json
from shepherd.wire.card import CARD_LIMIT
from shepherd.wire.document import DOCUMENT, Fields, Items, parse_document
from shepherd.wire.media import CSV, FOLDER, JSON, PARQUET, TSV, kind_of
from shepherd.wire.value import ClaimCheck, Value
from shepherd.worker import card_table
from shepherd.worker.desk import Desk
from shepherd.worker.failure import printable
from shepherd.worker.pixels import pixels
from shepherd.worker.tabulate import glance

#: Bytes of a file that are read whole, to count its lines or to see what its JSON holds.
_READ_WHOLE: Final = 4 * 1024 * 1024
_FIRST_CHARACTERS: Final = 2_000
_KEYS: Final = 50
_NAME: Final = 200
_MOST_MEMBERS: Final = 2_000


def card_of(result: Value, source: Value, desk: Desk) -> dict[str, Any] | None:
    """Return the card of a result in the store, with what changed against the task's input `source`.

    None for what travelled inline, and so says everything itself.
    """
    if not isinstance(result, ClaimCheck):
        return None
    common = {"size": result.size, "sha256": result.sha256, "media_type": result.media_type}
    path = desk.local(result)
    if path is None:
        return {"kind": "file", **common}
    return fitted({**_described(result, path, source, desk), **common})


def _described(result: ClaimCheck, path: Path, source: Value, desk: Desk) -> dict[str, Any]:
    kind = kind_of(result)
    if (table := _as_table(result, path, desk)) is not None:
        described = card_table.described(table[0], is_whole=table[1])
        if described is not None:
            return {**described, **_change(table, source, desk)}
    if kind.startswith("image/"):
        size = pixels(path)
        return {"kind": "image", **({"width": size[0], "height": size[1]} if size else {})}
    if kind in _SEVERAL:
        return _SEVERAL[kind](path)
    if kind == JSON or kind.endswith("+json"):
        return _json(path)
    return _text(path) if kind.startswith("text/") or kind.endswith("xml") else {"kind": "file"}


def _as_table(claim: ClaimCheck, path: Path, desk: Desk) -> tuple[Path, bool] | None:
    """Return a Parquet file of what a claim holds, and whether of all rows; None if that is no table or too dear."""
    if kind_of(claim) == PARQUET:
        return path, True
    if (made := desk.table(claim)) is not None:
        return made, True
    # Only where the task's own code has brought polars along: a card is worth no import of a second.
    if kind_of(claim) not in {CSV, TSV} or "polars" not in sys.modules:
        return None
    try:
        return glance(path, claim, desk)
    except TaskFailedError:
        return None


def _change(table: tuple[Path, bool], source: Value, desk: Desk) -> dict[str, Any]:
    """Return what a task did to its input, where that was a table."""
    if not isinstance(source, ClaimCheck) or (given := desk.local(source)) is None:
        return {}
    input_table = _as_table(source, given, desk)
    before = card_table.outline(input_table[0], is_whole=input_table[1]) if input_table else None
    after = card_table.outline(table[0], is_whole=table[1])
    return {} if before is None or after is None else {"change": card_table.change(before, after)}


def _text(path: Path) -> dict[str, Any]:
    begun, is_whole = _beginning(path)
    text = begun.decode("utf-8", "replace")
    lines = {"lines": begun.count(b"\n") + (not begun.endswith(b"\n") and bool(begun))} if is_whole else {}
    return {"kind": "text", **lines, "first": printable(text[:_FIRST_CHARACTERS])}


def _folder(path: Path) -> dict[str, Any]:
    """Read a tar's headers, up to so many that a card is made at once."""
    with tarfile.open(path, "r:") as tar:
        members = list(itertools.islice(tar, _MOST_MEMBERS + 1))
    files = [{"name": printable(member.name)[-_NAME:], "size": member.size} for member in members if member.isfile()]
    is_whole = len(members) <= _MOST_MEMBERS
    return {"kind": "folder", **({"items": len(files)} if is_whole else {}), "files": files[:_KEYS]}


def _values(path: Path) -> dict[str, Any]:
    node = parse_document(path.read_bytes())
    parts = node.parts.items() if isinstance(node, Fields) else enumerate(node.parts if isinstance(node, Items) else [])
    told = [{"name": printable(str(name))[:_NAME], **_part(part)} for name, part in parts]
    return {"kind": "values", "items": len(told), "files": told[:_KEYS]}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, ClaimCheck):
        return {"size": part.size, "media_type": part.media_type}
    return {"items": len(part.parts)} if isinstance(part, Fields | Items) else {}


_SEVERAL: Final = {FOLDER: _folder, DOCUMENT: _values}


def _json(path: Path) -> dict[str, Any]:
    begun, is_whole = _beginning(path)
    described: dict[str, Any] = {"kind": "json", "first": printable(begun.decode("utf-8", "replace"))}
    described["first"] = described["first"][:_FIRST_CHARACTERS]
    if is_whole:
        try:
            document = strict_json.loads(begun)
        except strict_json.StrictJsonError:
            return described
        described |= shape(document)
    return described


def shape(document: Any) -> dict[str, Any]:
    """Return what a JSON value is at its top: how many items, or which keys."""
    if isinstance(document, list):
        return {"type": "array", "items": len(document)}
    if isinstance(document, dict):
        return {"type": "object", "items": len(document), "keys": [key[:100] for key in list(document)[:_KEYS]]}
    names = {str: "string", bool: "boolean", type(None): "null"}
    return {"type": names.get(type(document), "number")}


def _beginning(path: Path) -> tuple[bytes, bool]:
    with path.open("rb") as file:
        begun = file.read(_READ_WHOLE + 1)
    return begun[:_READ_WHOLE], len(begun) <= _READ_WHOLE


def fitted(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card, or what of it a message takes: first rows go before columns, columns before their number."""
    for shorter in _SHORTER:
        if len(strict_json.dumps(card)) <= CARD_LIMIT:
            break
        card = shorter(card)
    return card


def _halved(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def shorter(card: dict[str, Any]) -> dict[str, Any]:
        found = card.get(name)
        return {**card, name: found[: len(found) // 2]} if isinstance(found, list | str) else card

    return shorter


def _narrowed(card: dict[str, Any]) -> dict[str, Any]:
    rows = card.get("first")
    return {**card, "first": [row[: len(row) // 2] for row in rows]} if isinstance(rows, list) else card


def _without_lists(card: dict[str, Any]) -> dict[str, Any]:
    change = {name: value for name, value in card.get("change", {}).items() if not isinstance(value, list)}
    kept = {name: value for name, value in card.items() if not isinstance(value, list)}
    return {**kept, "change": change} if "change" in card else kept


def _without_change_lists(card: dict[str, Any]) -> dict[str, Any]:
    change = {
        name: value[:_KEYS] if isinstance(value, list) else value for name, value in card.get("change", {}).items()
    }
    return {**card, "change": change} if "change" in card else card


_SHORTER: Final = (
    _halved("first"),
    _narrowed,
    _narrowed,
    _without_change_lists,
    _halved("columns"),
    _halved("files"),
    _halved("first"),
    _narrowed,
    _halved("columns"),
    _halved("columns"),
    _without_lists,
)
