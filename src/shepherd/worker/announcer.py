"""What a worker says about itself: manifests and heartbeats, by the clock and when asked."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from shepherd.broker.port import Broker, Message, Subscription
from shepherd.broker.topology import ALL_WORKERS_KEY, BEATS, CONTROL_EXCHANGE
from shepherd.errors import ProtocolError
from shepherd.wire.beat import Beat
from shepherd.wire.fields import parse_kind
from shepherd.wire.manifest import Manifest
from shepherd.worker.process import wait_until

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_PUBLISH_S: Final = 5.0


class Announcer:
    """One thread that beats, and answers what the Task Publisher asks all workers."""

    def __init__(
        self, broker: Broker, *, worker: str, beat_s: float, describe: Callable[[], tuple[Manifest, Beat] | None]
    ) -> None:
        """Announce what `describe` returns; None means that nothing is known yet."""
        self._broker = broker
        self._keys = [ALL_WORKERS_KEY, f"worker.{worker}"]
        self._beat_s = beat_s
        self._describe = describe
        self._is_closed = threading.Event()
        self._is_due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shepherd-announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def announce_soon(self) -> None:
        """Announce at the next look, half a second at most: something has changed."""
        self._is_due.set()

    def announce(self) -> None:
        """Send a manifest and a heartbeat, without waiting long; what isn't taken is sent again by the clock."""
        told = self._describe()
        if told is None:
            return
        manifest, beat = told
        self._broker.publish([_notice("manifest", manifest), _notice("beat", beat)], timeout_s=_PUBLISH_S)

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join(_PUBLISH_S + 2 * _LOOK_S)

    def _run(self) -> None:
        control = self._broker.listen(CONTROL_EXCHANGE, binding_keys=self._keys)
        next_beat = 0.0
        while not self._is_closed.is_set():
            try:
                self._hear(control, wait_s=min(_LOOK_S, wait_until(next_beat)))
                if self._is_due.is_set() or time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self._beat_s
                    self._is_due.clear()
                    self.announce()
            except Exception:  # a daemon's loop: logs, backs off, goes on
                logger.exception("announcer.failed")
                self._is_closed.wait(1.0)
        control.close()

    def _hear(self, control: Subscription, *, wait_s: float) -> None:
        deliveries = control.take(at_most=10, wait_s=wait_s)
        # Withdrawals, cancels and drains will be heard here as well.
        if _kinds([delivery.body for delivery in deliveries]) & {"hello"}:
            self._is_due.set()
        control.ack(deliveries)


def _kinds(bodies: Sequence[bytes]) -> set[str]:
    kinds = set()
    for body in bodies:
        try:
            kinds.add(parse_kind(body))
        except ProtocolError as error:
            logger.warning("control.malformed", extra={"why": str(error)})
    return kinds


def _notice(kind: str, content: Manifest | Beat) -> Message:
    # Worth nothing when old: neither kept nor missed where nobody wants it.
    return Message(routing_key=BEATS, body=content.to_bytes(), type=kind, is_mandatory=False, is_persistent=False)
