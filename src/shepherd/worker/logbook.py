"""The log of one attempt: numbered, sent in batches, capped."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shepherd.broker.port import Message
from shepherd.broker.topology import LOGS
from shepherd.wire.logs import LogLine, LogLines
from shepherd.worker.pipe import cut

#: An attempt's log ends here, with a line that says so.
MOST_LINES: Final = 10_000
MOST_BYTES: Final = 4 * 1024 * 1024
#: Lines wait for each other at most this long, in seconds.
FLUSH_S: Final = 0.2
_MOST_IN_BATCH: Final = 500
_MOST_BYTES_IN_BATCH: Final = 256 * 1024


@dataclass(slots=True, kw_only=True)
class Logbook:
    """Collects the lines of one attempt. For one thread."""

    token: str
    worker: str
    #: How many lines there are, with the one that says that the rest is missing.
    count: int = 0
    _bytes: int = 0
    is_full: bool = False
    _waiting: list[LogLine] = field(default_factory=list)
    _waiting_bytes: int = 0
    #: When the oldest waiting line came, by the monotonic clock.
    _since: float = 0.0

    def add(self, *, level: str, text: str, at: datetime | None = None) -> None:
        if self.is_full:
            return
        size = len(text)
        if self.count >= MOST_LINES - 1 or self._bytes + size > MOST_BYTES:
            self.is_full = True
            level, text = "WARNING", f"the log ends here: more than {self.count} lines or {MOST_BYTES} bytes"
        self._append(level, cut(text), at=at or datetime.now(UTC))

    def due(self) -> list[Message]:
        """Return what should be sent now: full batches, and lines that have waited long enough."""
        is_late = self._waiting and time.monotonic() - self._since >= FLUSH_S
        is_much = len(self._waiting) >= _MOST_IN_BATCH or self._waiting_bytes >= _MOST_BYTES_IN_BATCH
        return self.rest() if is_late or is_much else []

    def rest(self) -> list[Message]:
        """Return everything that was not sent."""
        if not self._waiting:
            return []
        body = LogLines(token=self.token, worker=self.worker, lines=tuple(self._waiting)).to_bytes()
        self._waiting, self._waiting_bytes = [], 0
        # Not mandatory: a log must not keep a result waiting when its queue is missing.
        return [Message(routing_key=LOGS, body=body, type="log", is_mandatory=False)]

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def _append(self, level: str, text: str, *, at: datetime) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self.count += 1
        self._bytes += len(text)
        self._waiting_bytes += len(text)
        self._waiting.append(LogLine(n=self.count, at=at, level=level, text=text))
