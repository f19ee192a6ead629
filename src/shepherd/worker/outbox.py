"""What a worker has to say about its attempts, on its way to the broker. One thread sends for all slots, in batches."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from shepherd.broker.port import Broker, Message
from shepherd.errors import BrokerUnavailableError, TransientError

logger = logging.getLogger(__name__)

_MOST_IN_BATCH: Final = 200
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_LOOK_S: Final = 1.0
#: How long a worker that ends waits for a broker that is away; what stays unacked is delivered again.
LAST_WORDS_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _Parcel:
    message: Message
    on_confirmed: Callable[[], None] | None = None


class Outbox:
    """Sends until confirmed, in the order in which it was given, while the broker comes and goes."""

    def __init__(self, broker: Broker, *, stopping: threading.Event) -> None:
        """Send through `broker`; once `stopping` is set, an absent one isn't waited for much longer."""
        self._broker = broker
        self._stopping = stopping
        self._waiting: deque[_Parcel] = deque()
        self._changed = threading.Condition()
        self._is_sending = False
        self._is_closed = False
        self._pause_s = 0.0
        self._thread = threading.Thread(target=self._send_all, name="shepherd-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, messages: Sequence[Message], *, on_confirmed: Callable[[], None] | None = None) -> None:
        """Send these when it can be done, without waiting for it; the callback hears of the last one's confirm.

        It is called by the thread that sends, and must neither wait nor raise.
        """
        parcels = [_Parcel(message) for message in messages]
        if parcels:
            parcels[-1].on_confirmed = on_confirmed
        self._add(parcels)

    def deliver(
        self,
        messages: Sequence[Message],
        *,
        on_sent: Callable[[], None] | None = None,
        on_waiting: Callable[[], None] | None = None,
    ) -> bool:
        """Send these, and return True when the last one is confirmed; False when the worker ends first.

        `on_sent` is called when they are on their way, if that can be at once, as `Broker.publish` says; `on_waiting`,
        once, if the broker doesn't confirm at once.
        """
        # From the slot's own thread: one that sends for all would let each wait for the confirms of the others.
        if self.is_empty and not any(self._published(messages, on_sent=on_sent)):
            return True
        is_confirmed = threading.Event()
        self.post(messages, on_confirmed=is_confirmed.set)
        if on_waiting is not None:
            on_waiting()
        patience_s = LAST_WORDS_S
        while not is_confirmed.wait(_LOOK_S):
            patience_s -= _LOOK_S if self._stopping.is_set() else 0
            if patience_s <= 0 or (self._is_closed and not self._thread.is_alive()):
                return False
        return True

    def close(self, *, wait_s: float) -> None:
        """Send what is waiting, for at most `wait_s` seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(wait_s)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here that something else might overtake."""
        with self._changed:
            return not (self._waiting or self._is_sending or self._is_closed)

    def _add(self, parcels: list[_Parcel]) -> None:
        with self._changed:
            self._waiting.extend(parcels)
            self._changed.notify_all()

    def _send_all(self) -> None:
        while batch := self._next_batch():
            self._note(self._send(batch))

    def _next_batch(self) -> list[_Parcel]:
        with self._changed:
            self._is_sending = False
            if self._pause_s:
                self._changed.wait_for(lambda: self._is_closed, self._pause_s)
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            self._is_sending = bool(self._waiting)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_IN_BATCH))]

    def _send(self, batch: list[_Parcel]) -> list[TransientError]:
        answers = self._published([parcel.message for parcel in batch])
        unsent = [parcel for parcel, answer in zip(batch, answers, strict=True) if answer is not None]
        for parcel, answer in zip(batch, answers, strict=True):
            if answer is None and parcel.on_confirmed is not None:
                parcel.on_confirmed()
        with self._changed:
            # In front: what came later must not overtake it.
            self._waiting.extendleft(reversed(unsent))
        return [answer for answer in answers if answer is not None]

    def _published(
        self, messages: Sequence[Message], *, on_sent: Callable[[], None] | None = None
    ) -> Sequence[TransientError | None]:
        try:
            return self._broker.publish(messages, on_sent=on_sent)
        except Exception as error:  # a daemon's loop: logs, backs off, goes on
            logger.exception("outbox.failed")
            return [BrokerUnavailableError(str(error))] * len(messages)

    def _note(self, failures: list[TransientError]) -> None:
        if not failures:
            self._pause_s = 0.0
            return
        if not self._pause_s:
            logger.warning("outbox.unconfirmed", extra={"messages": len(failures), "reason": str(failures[0])})
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self._pause_s * 2))
