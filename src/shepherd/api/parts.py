"""One of the several values that a task returned."""

from collections.abc import Callable

from shepherd.errors import NotFoundError, ProtocolError, StoreUnavailableError
from shepherd.wire.document import DOCUMENT, Fields, Items, Node, parse_document
from shepherd.wire.media import kind_of
from shepherd.wire.value import ClaimCheck, Inline, Value


def part_of(value: Value, pointer: str, read: Callable[[ClaimCheck], bytes]) -> Value:
    """Return the value that a JSON pointer leads to in a list or dict of values; its first `/` may be left out.

    Raises:
        NotFoundError: It leads to none, or to several again.
        StoreUnavailableError: The list of the values can't be read.
    """
    if not isinstance(value, ClaimCheck) or kind_of(value) != DOCUMENT:
        raise NotFoundError("the task returned one value, which has no parts")
    try:
        node = parse_document(read(value))
    except ProtocolError as error:
        raise StoreUnavailableError(f"what lies in the store isn't what the task left there: {error}") from error
    for step in pointer.removeprefix("/").split("/"):
        node = _below(node, step.replace("~1", "/").replace("~0", "~"), pointer)
    if isinstance(node, Fields | Items):
        raise NotFoundError(f"{pointer[:100]!r} is several values itself: {_listed(node)}")
    return node


def _below(node: Node, step: str, pointer: str) -> Node:
    if isinstance(node, Fields) and step in node.parts:
        return node.parts[step]
    if isinstance(node, Items) and step.isascii() and step.isdigit() and int(step[:9]) < len(node.parts):
        return node.parts[int(step[:9])]
    raise NotFoundError(f"what the task returned has no part {pointer[:100]!r}; there {_listed(node)}")


def _listed(node: Node) -> str:
    if isinstance(node, Fields):
        shown = ", ".join(map(repr, list(node.parts)[:20]))
        return f"are {shown}{' …' if len(node.parts) > 20 else ''}"
    if isinstance(node, Items):
        return f"are {len(node.parts)}, by their numbers from 0"
    return "is one value" if isinstance(node, Inline) else "is one file"
