"""What a worker says about itself, by the clock and when asked; and what it is told."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from shepherd.broker.port import Broker, Message, Subscription
from shepherd.broker.topology import BEATS
from shepherd.errors import ProtocolError
from shepherd.wire.beat import Beat
from shepherd.wire.control import Withdrawals
from shepherd.wire.fields import parse_kind
from shepherd.wire.manifest import Manifest
from shepherd.worker.process import wait_until

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_PUBLISH_S: Final = 5.0
#: Between two requests for the list of withdrawn attempts.
_ASK_S: Final = 1.0
#: An answer that takes longer than this is worth a line in the log.
_PATIENCE_S: Final = 3.0


class Announcer:
    """One thread that beats, and answers what the Task Publisher asks all workers."""

    def __init__(
        self,
        broker: Broker,
        control: Subscription,
        *,
        beat_s: float,
        describe: Callable[[], tuple[Manifest, Beat] | None],
        withdraw: Callable[[Withdrawals, int | None], None],
    ) -> None:
        """Announce what `describe` returns, None means that nothing is known yet; pass on what `control` brings.

        `withdraw` gets a list, and the generation of the control queue that it came in.
        """
        self._broker = broker
        self._control = control
        self._beat_s = beat_s
        self._describe = describe
        self._withdraw = withdraw
        self._is_closed = threading.Event()
        self._is_due = threading.Event()
        #: Whether the last manifest asked for the list, and since when all have.
        self._is_asking = False
        self._asking_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="shepherd-announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def announce_soon(self) -> None:
        """Announce at the next look, half a second at most: something has changed."""
        self._is_due.set()

    def announce(self) -> bool:
        """Send a manifest and a heartbeat, without waiting long; False if the broker is away.

        What isn't taken for another reason is sent again by the clock.
        """
        if not self._broker.is_connected:
            # Not waited for: a worker that ends would wait as well.
            self._asking_since = None
            return False
        told = self._describe()
        if told is not None:
            manifest, beat = told
            self._note_asking(is_asking=manifest.wants_withdrawals)
            self._broker.publish([_notice("manifest", manifest), _notice("beat", beat)], timeout_s=_PUBLISH_S)
        return True

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join(_PUBLISH_S + 2 * _LOOK_S)

    def _run(self) -> None:
        next_beat = 0.0
        while not self._is_closed.is_set():
            try:
                self._hear(wait_s=min(_LOOK_S, wait_until(next_beat)))
                if self._is_due.is_set() or time.monotonic() >= next_beat:
                    self._is_due.clear()
                    next_beat = time.monotonic() + self._pause_s(is_sent=self.announce())
            except Exception:  # a daemon's loop: logs, backs off, goes on
                logger.exception("announcer.failed")
                self._is_closed.wait(1.0)
        self._control.close()

    def _pause_s(self, *, is_sent: bool) -> float:
        if not is_sent:
            return min(_LOOK_S, self._beat_s)
        return min(_ASK_S, self._beat_s) if self._is_asking else self._beat_s

    def _hear(self, *, wait_s: float) -> None:
        generation = self._control.generation
        deliveries = self._control.take(at_most=100, wait_s=wait_s)
        for delivery in deliveries:
            try:
                self._obey(delivery.body, generation)
            except ProtocolError as error:
                logger.warning("control.malformed", extra={"why": str(error)})
        self._control.ack(deliveries)

    def _obey(self, body: bytes, generation: int | None) -> None:
        match parse_kind(body):
            case "hello":
                self._is_due.set()
            case "withdrawals":
                self._withdraw(Withdrawals.parse(body), generation)

    def _note_asking(self, *, is_asking: bool) -> None:
        self._is_asking = is_asking
        # While the broker is away, nobody could answer: that is said elsewhere.
        if not is_asking or not self._broker.is_connected:
            self._asking_since = None
        elif self._asking_since is None:
            self._asking_since = time.monotonic()
        elif self._asking_since != math.inf and time.monotonic() - self._asking_since >= _PATIENCE_S:
            logger.warning("worker.waiting_for_task_publisher", extra={"for": "the list of withdrawn attempts"})
            # Said once.
            self._asking_since = math.inf


def _notice(kind: str, content: Manifest | Beat) -> Message:
    # Worth nothing when old: neither kept nor missed where nobody wants it.
    return Message(routing_key=BEATS, body=content.to_bytes(), type=kind, is_mandatory=False, is_persistent=False)
