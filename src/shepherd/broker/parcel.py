"""What is published at once, and what became of it."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from shepherd.broker.port import Message
from shepherd.errors import BrokerUnavailableError, TransientError

_UNCONFIRMED: Final = "the broker did not confirm in time"


class Parcel:
    """Messages that are written at once. One thread waits for all of them, the loop's settles them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        #: Called by the loop's thread when all are written.
        self.on_sent: Callable[[], None] | None = None
        #: Called by the loop's thread with what became of each.
        self.on_settled: Callable[[Sequence[TransientError | None]], None] | None = None
        self._outcomes: list[TransientError | None] = [BrokerUnavailableError(_UNCONFIRMED)] * len(messages)
        self._left = len(messages)
        # A bare lock: an event makes a condition, and a lock a wait.
        self._done = threading.Lock()
        self._done.acquire()

    def settle(self, index: int, failure: TransientError | None) -> None:
        """Note what became of one message. Once for each."""
        self._outcomes[index] = failure
        self._left -= 1
        if not self._left:
            self._done.release()
            if self.on_settled is not None:
                self.on_settled(self._outcomes)

    def refuse(self, failure: TransientError) -> None:
        """Note that nothing of this was written."""
        for index in range(len(self.messages)):
            self.settle(index, failure)

    def wait(self, timeout_s: float) -> list[TransientError | None]:
        """Return what became of each, as far as it is known after `timeout_s` seconds. To be called once."""
        self._done.acquire(timeout=max(0.0, timeout_s))
        return list(self._outcomes)
