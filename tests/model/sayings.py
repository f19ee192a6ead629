"""What workers say, in bytes, and how long a Task Publisher has listened to it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings

from shepherd.broker.topology import BEATS, REPLIES, worker_key
from shepherd.publisher.ears import Ears
from shepherd.wire.beat import Beat
from shepherd.wire.envelope import Claimed, Finished, Started, TaskError, Withdrawn, parse_reply
from shepherd.wire.manifest import Manifest, TaskOffer
from shepherd.wire.value import Inline
from tests.model.state import Said

#: In all replies: which worker speaks is of no account.
_SPEAKER: Final = "w"
_SHORT: Final[dict[str, Any]] = {"started": Started, "claimed": Claimed, "withdrawn": Withdrawn}
#: Of the tasks.
NAMES: Final = ("first", "second")


def worker_id(place: int) -> str:
    return f"{_SPEAKER}{place}"


WORKER_KEYS: Final = [worker_key(worker_id(place)) for place in range(2)]


def reply_bytes(said: Said) -> bytes:
    common: dict[str, Any] = {"token": said.token, "worker": _SPEAKER, "at": datetime.now(UTC)}
    if said.kind in _SHORT:
        short: Started | Claimed | Withdrawn = _SHORT[said.kind](**common)
        return short.to_bytes()
    if said.kind == "succeeded":
        return Finished(**common, elapsed_s=0.0, result=Inline(said.token)).to_bytes()
    error = TaskError(code="broken", message="broken")
    return Finished(**common, elapsed_s=0.0, error=error, is_lost=said.kind == "lost").to_bytes()


def said_in(body: bytes) -> Said:
    reply = parse_reply(body)
    if not isinstance(reply, Finished):
        return Said(type(reply).__name__.lower(), reply.token)
    kind = "succeeded" if reply.error is None else "lost" if reply.is_lost else "failed"
    return Said(kind, reply.token)


def heartbeats(held: Sequence[str]) -> Iterator[bytes]:
    """Yield what workers say that live, and execute these or have waited for a lease for something to execute."""
    lease_s = settings.SHEPHERD.lease.total_seconds()
    offers = tuple(TaskOffer(name=name, description="", context_schema={}, data="") for name in NAMES)
    for place, token in enumerate(held):
        common: dict[str, Any] = {"worker": worker_id(place), "at": datetime.now(UTC), "free_slots": int(not token)}
        yield Manifest(
            **common, host="h", pid=1, version="0", slots=1, state="serving", store="", tasks=offers
        ).to_bytes()
        yield Beat(**common, holds=(token,) if token else (), idle_s=0.0 if token else 2 * lease_s).to_bytes()


class Hearing:
    """Ears in a time of their own."""

    def __init__(self, ears: type[Ears], *, has_heard: bool) -> None:
        self._now = 0.0
        self.ears = ears(REPLIES, BEATS, lease=settings.SHEPHERD.lease, monotonic=lambda: self._now)
        if has_heard:
            self.lease()

    def database_time(self) -> datetime:
        return datetime(2026, 1, 31, tzinfo=UTC) + timedelta(seconds=self._now)

    def lease(self) -> None:
        """Have a lease pass, in which all is taken that comes."""
        for _ in range(int(settings.SHEPHERD.lease.total_seconds()) + 3):
            self.second()
            self.ears.have_heard(database_at=self.database_time())

    def second(self) -> None:
        self._now += 1.0
        for queue in (REPLIES, BEATS):
            self.ears.turned(queue, began_at=self._now, generation=1)
