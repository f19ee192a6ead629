"""What the Task Publisher tells workers, what the web server tells it, and what nobody can use."""

from dataclasses import dataclass
from typing import Any

from shepherd.errors import ProtocolError
from shepherd.wire.fields import Fields, encode, typed
from shepherd.wire.value import ClaimCheck, parse_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The Task Publisher asks every worker to announce itself now."""

    def to_bytes(self) -> bytes:
        return encode("hello")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMark:
    """How a worker finds out whether it sees the Task Publisher's store: its URL, and a small object in it."""

    url: str
    claim: ClaimCheck

    def to_wire(self) -> dict[str, Any]:
        return {"url": self.url, **self.claim.to_wire()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawals:
    """Attempts that must not be executed: whoever gets one answers `withdrawn`, whoever executes one ends it first."""

    tokens: tuple[str, ...]
    #: Such as were given up as lost: whoever gets one answers `withdrawn`, too, but whoever executes one goes on.
    lost: tuple[str, ...] = ()
    #: True for the whole list, which a worker has to have before it takes anything; False for what is added to it.
    is_complete: bool = False
    #: The Task Publisher's store; None while it has no mark there, or is of an earlier version.
    store: StoreMark | None = None

    def to_bytes(self) -> bytes:
        store = {"store": self.store.to_wire()} if self.store is not None else {}
        lists = {"tokens": list(self.tokens), "lost": list(self.lost)}
        return encode("withdrawals", **lists, is_complete=self.is_complete, **store)

    @classmethod
    def parse(cls, body: bytes) -> "Withdrawals":
        """Return the list that a control message holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(typed(body, "withdrawals"))
        lost = () if fields.raw("lost") is None else _texts(fields, "lost")
        store = fields.object("store", {})
        return cls(
            tokens=_texts(fields, "tokens"),
            lost=lost,
            is_complete=fields.flag("is_complete", False),
            store=_parse_mark(store) if store else None,
        )


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    items = fields.items(name)
    if not all(isinstance(item, str) for item in items):
        raise ProtocolError(f"{name}: must be a list of strings")
    return tuple(items)


def _parse_mark(document: dict[str, Any]) -> StoreMark:
    claim = parse_value(document, path="store")
    if not isinstance(claim, ClaimCheck):
        raise ProtocolError("store.claim: must be a claim check")
    return StoreMark(url=Fields(document, path="store").text("url"), claim=claim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Something was accepted: the Task Publisher should look at once, not at its next sweep."""

    def to_bytes(self) -> bytes:
        return encode("wake")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that nobody can use, kept with the reason for people to look at."""

    reason: str
    #: The queue that it came from.
    source: str
    body: bytes

    def to_bytes(self) -> bytes:
        return encode("dead", reason=self.reason, source=self.source, body=self.body.decode("utf-8", "replace"))

    @classmethod
    def parse(cls, body: bytes) -> "DeadLetter":
        """Return the letter that a message holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(typed(body, "dead"))
        text = fields.text("body").encode("utf-8", "replace")
        return cls(reason=fields.words("reason"), source=fields.words("source"), body=text)
