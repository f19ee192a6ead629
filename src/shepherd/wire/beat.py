"""A worker's sign of life."""

from dataclasses import dataclass
from datetime import datetime

from shepherd.errors import ProtocolError
from shepherd.wire.fields import Fields, encode, format_time, typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A worker lives, and these attempts are in its hands."""

    worker: str
    at: datetime
    free_slots: int
    #: Tokens of every attempt that it holds.
    holds: tuple[str, ...]
    #: For how many seconds a slot has been waiting for a delivery, none of its queues having one; 0 if none waits.
    idle_s: float = 0.0

    def to_bytes(self) -> bytes:
        return encode(
            "beat",
            worker=self.worker,
            at=format_time(self.at),
            free_slots=self.free_slots,
            holds=list(self.holds),
            idle_s=round(self.idle_s, 3),
        )


def parse_beat(body: bytes) -> Beat:
    """Return the heartbeat that a delivery from `shepherd.beats` holds.

    Raises:
        ProtocolError: It holds none; the text names the field.
    """
    fields = Fields(typed(body, "beat"))
    holds = fields.items("holds")
    if not all(isinstance(token, str) for token in holds):
        raise ProtocolError("holds: must be a list of strings")
    return Beat(
        worker=fields.id("worker"),
        at=fields.time("at"),
        free_slots=fields.count("free_slots"),
        holds=tuple(holds),
        idle_s=0.0 if fields.raw("idle_s") is None else fields.number("idle_s"),
    )
