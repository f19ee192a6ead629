"""An attempt in this worker's hands, and all of them together."""

import threading
from collections.abc import Callable, Iterable
from enum import Enum, auto

from shepherd.broker.port import Delivery, Intake


class Cause(Enum):
    """Why an attempt was ended from outside."""

    WITHDRAWN = auto()
    RUN_TIMEOUT = auto()
    #: The worker has to end at once.
    GIVEN_UP = auto()


class Attempt:
    """One delivery, from its arrival to its reply. Safe from any thread."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        #: Empty if the message names no attempt.
        self.token = delivery.message_id
        #: True once a lease runs: the broker is no longer responsible.
        self.is_claimed = False
        #: True once this delivery of it is settled; another one may have been claimed in its place.
        self.is_acked = False
        self._lock = threading.RLock()
        self._cause: Cause | None = None
        self._kill: Callable[[], None] | None = None
        self._is_over = False

    def begin(self, kill: Callable[[], None]) -> bool:
        """Have `kill` end it from now on; False when it is already to be ended, so it mustn't be begun."""
        with self._lock:
            self._kill = kill
            return self._cause is None

    def end(self, cause: Cause) -> None:
        """End it with everything that it started, unless it has ended."""
        with self._lock:
            if self._is_over or self._cause is not None:
                return
            self._cause = cause
            # With the lock: the child's next attempt must not be hit.
            if self._kill is not None:
                self._kill()

    def ack(self, intake: Intake) -> None:
        """Have the broker told that this delivery is done with, and fetch the next one; nothing if it was."""
        if not self.is_acked:
            self.is_acked = True
            intake.ack(self.delivery, goes_on=True)

    def is_over_at_once(self) -> bool:
        """Let nothing end it any more, as `over` does, unless that would have to wait for what is just ending it."""
        if not self._lock.acquire(blocking=False):
            return False
        self._is_over = True
        self._lock.release()
        return True

    def over(self) -> Cause | None:
        """Let nothing end it any more, and return what did."""
        with self._lock:
            self._is_over = True
            return self._cause


class Hands:
    """Every attempt that this worker has, until its reply is confirmed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Without an attempt: its reply waits to be sent.
        self._held: dict[str, Attempt | None] = {}

    @property
    def tokens(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._held)

    def take(self, attempt: Attempt) -> bool:
        """Hold an attempt; False when there is one of this token already, which stays."""
        if not attempt.token:
            return True
        with self._lock:
            return self._held.setdefault(attempt.token, attempt) is attempt

    def get(self, token: str) -> Attempt | None:
        with self._lock:
            return self._held.get(token)

    def keep_reply(self, token: str) -> None:
        """Hold an attempt that is over, as long as its reply waits."""
        with self._lock:
            self._held[token] = None

    def let_go(self, attempt: Attempt) -> None:
        """Hold an attempt no longer, unless its reply is kept."""
        with self._lock:
            if self._held.get(attempt.token) is attempt:
                del self._held[attempt.token]

    def drop(self, token: str) -> None:
        with self._lock:
            self._held.pop(token, None)

    def end(self, tokens: Iterable[str], cause: Cause) -> None:
        """End those of these that are in hand."""
        with self._lock:
            found = [attempt for token in tokens if (attempt := self._held.get(token)) is not None]
        for attempt in found:
            attempt.end(cause)

    def end_all(self, cause: Cause) -> None:
        self.end(self.tokens, cause)
