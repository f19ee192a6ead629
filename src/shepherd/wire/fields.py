"""Reading a message's fields, with errors that name them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from shepherd.errors import ProtocolError
from shepherd.names import TASK_NAME_RULE, is_task_name
from shepherd.wire import strict_json

#: The version that this code speaks; a message of another one is refused.
VERSION: Final = 0

#: The largest that every database's integer column holds.
LARGEST_COUNT: Final = 2**31 - 1
#: What every JSON reader holds without rounding (RFC 8259, section 6).
LARGEST_NUMBER: Final = 2**53 - 1
#: Characters of a token or of a worker's id.
LONGEST_ID: Final = 255


def parse_document(body: bytes) -> dict[str, Any]:
    """Return a message's fields.

    Raises:
        ProtocolError: The body isn't a JSON object of the version that this code speaks.
    """
    try:
        document = strict_json.loads(body)
    except strict_json.StrictJsonError as error:
        raise ProtocolError(f"the message can't be read: {error}") from None
    if not isinstance(document, dict):
        raise ProtocolError("the message must be a JSON object")
    if type(document.get("v")) is not int or document["v"] != VERSION:
        raise ProtocolError(f"v: is {document.get('v')!r}, but this side speaks version {VERSION}")
    return document


def typed(body: bytes, kind: str) -> dict[str, Any]:
    document = parse_document(body)
    if document.get("type") != kind:
        raise ProtocolError(f"type: is {document.get('type')!r}, wanted {kind!r}")
    return document


def encode(kind: str, **fields: Any) -> bytes:
    return strict_json.dumps({"v": VERSION, "type": kind, **fields}).encode()


def parse_kind(body: bytes) -> str:
    """Return the `type` of a message, whatever else is in it.

    Raises:
        ProtocolError: It isn't a message.
    """
    return Fields(parse_document(body)).text("type")


class Fields:
    """One JSON object of a message, read field by field; unknown fields are left alone: a newer side may add some."""

    def __init__(self, document: Any, *, path: str = "") -> None:
        if not isinstance(document, Mapping):
            raise ProtocolError(f"{path}: must be an object")
        self._document = document
        self._path = path

    def text(self, name: str, default: str | None = None) -> str:
        value = self._document.get(name, default)
        if not isinstance(value, str):
            raise self._refusal(name, "a string")
        return value

    def id(self, name: str) -> str:
        value = self.text(name)
        if not 0 < len(value) <= LONGEST_ID or "\0" in value:
            raise self._refusal(name, f"a string of 1 to {LONGEST_ID} characters without NUL")
        return value

    def words(self, name: str, default: str | None = None, *, longest: int | None = None) -> str:
        """Return a text for people, without what no database holds, cut where it is too long."""
        return readable(self.text(name, default))[:longest]

    def task_name(self, name: str) -> str:
        value = self.text(name)
        if not is_task_name(value):
            raise ProtocolError(f"{strict_json.join(self._path, name)}: {TASK_NAME_RULE}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._document.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST_NUMBER:
            raise self._refusal(name, f"an integer between -{LARGEST_NUMBER} and {LARGEST_NUMBER}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        value = self.integer(name, default)
        if not 0 <= value <= LARGEST_COUNT:
            raise self._refusal(name, f"an integer from 0 to {LARGEST_COUNT}")
        return value

    def number(self, name: str) -> float:
        value = self._document.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._refusal(name, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self._refusal(name, "a number that a double holds") from None

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._document.get(name, default)
        if not isinstance(value, bool):
            raise self._refusal(name, "true or false")
        return value

    def time(self, name: str) -> datetime:
        try:
            return parse_time(self.text(name))
        except ValueError:
            raise self._refusal(name, "a time as in 2026-01-31T12:00:00.000000Z") from None

    def object(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        value = self._document.get(name, default)
        if not isinstance(value, dict):
            raise self._refusal(name, "an object")
        return value

    def items(self, name: str) -> list[Any]:
        value = self._document.get(name)
        if not isinstance(value, list):
            raise self._refusal(name, "a list")
        return value

    def inner(self, name: str) -> "Fields":
        return Fields(self._document.get(name), path=strict_json.join(self._path, name))

    def raw(self, name: str) -> Any:
        return self._document.get(name)

    def _refusal(self, name: str, wanted: str) -> ProtocolError:
        return ProtocolError(f"{strict_json.join(self._path, name)}: must be {wanted}")


def format_time(at: datetime) -> str:
    """Return an aware time as UTC with microseconds: `2026-01-31T12:00:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Return the time in UTC that an ISO 8601 text with a zone stands for.

    Raises:
        ValueError: It isn't one, names no zone, or lies before the year 1 or after 9999 in UTC.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time out of range") from None


def readable(text: str) -> str:
    """Return a text for people without what no message or no database holds: half surrogate pairs and NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
