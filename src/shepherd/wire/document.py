"""Several values in one: what a list or a dict travels as when not all that it holds is JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union

from shepherd.errors import ProtocolError
from shepherd.wire import strict_json
from shepherd.wire.fields import VERSION
from shepherd.wire.value import ClaimCheck, Inline, parse_value

#: Media type of a claim check whose bytes are such a document.
DOCUMENT: Final = "application/vnd.shepherd.values+json"


@dataclass(frozen=True, slots=True)
class Fields:
    """Parts with names."""

    parts: Mapping[str, "Node"]

    def to_wire(self) -> dict[str, Any]:
        return {"fields": {name: part.to_wire() for name, part in self.parts.items()}}


@dataclass(frozen=True, slots=True)
class Items:
    """Parts in an order."""

    parts: Sequence["Node"]

    def to_wire(self) -> dict[str, Any]:
        return {"items": [part.to_wire() for part in self.parts]}


Node = Union[Inline, ClaimCheck, Fields, Items]  # noqa: UP007  # names itself, and 3.11 evaluates it


def to_document(node: Fields | Items) -> bytes:
    return strict_json.dumps({"v": VERSION, **node.to_wire()}).encode()


def parse_document(content: bytes) -> Node:
    """Return the values that a document holds; fields that aren't known are left alone.

    Raises:
        ProtocolError: It is no such document; the text says where.
    """
    try:
        document = strict_json.loads(content)
    except strict_json.StrictJsonError as error:
        raise ProtocolError(f"the document of values {error}") from None
    if not isinstance(document, dict) or document.get("v") != VERSION or isinstance(document["v"], bool):
        raise ProtocolError(f"the document of values must be an object with 'v': {VERSION}")
    return _parse(document, path="values")


def _parse(document: Any, *, path: str) -> Node:
    kinds = document.keys() & {"fields", "items"} if isinstance(document, dict) else set()
    if not kinds:
        return parse_value(document, path=path)
    if len(document.keys() & {"fields", "items", "inline", "claim"}) > 1:
        raise ProtocolError(f"{path}: must have one of 'inline', 'claim', 'fields', 'items'")
    parts = document[kinds.pop()]
    if isinstance(parts, dict) and "fields" in document:
        return Fields({name: _parse(part, path=f"{path}.{name}") for name, part in parts.items()})
    if isinstance(parts, list) and "items" in document:
        return Items([_parse(part, path=f"{path}[{index}]") for index, part in enumerate(parts)])
    raise ProtocolError(f"{path}: 'fields' must be an object, 'items' a list")
