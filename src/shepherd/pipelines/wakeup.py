"""Telling the Task Publisher that there is work. Nothing depends on it: its sweep finds what it missed."""

import concurrent.futures.thread  # noqa: F401  # So that its pools have registered before us, see below.
import logging
import threading
from collections.abc import Callable
from typing import Final

from django.conf import settings

from shepherd.broker.port import Broker, Message
from shepherd.broker.rabbitmq import RabbitBroker
from shepherd.broker.topology import CONTROL_EXCHANGE, PUBLISHER_KEY
from shepherd.wire.control import Wake

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 0.5
#: After a broker couldn't be opened at all; the sweep does without us meanwhile.
_PAUSE_S: Final = 5.0


class Bell:
    """Rings in a thread of its own, which opens the connection at the first ring: nobody who rings ever waits.

    But for a process that ends: it gives the last ring half a second, or a command that accepts something would never
    be heard.
    """

    def __init__(self, open_broker: Callable[[], Broker]) -> None:
        self._open_broker = open_broker
        self._rung = threading.Event()
        #: Nothing was rung for that the broker wasn't told of.
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Ask for a wake-up; several asked for at once are one."""
        self._told.clear()
        self._rung.set()
        with self._lock:
            # Only now: a web server may fork after it has imported this, and threads don't follow.
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="wakeup", daemon=True)
                self._thread.start()
                _before_the_end(self._told.wait, _TIMEOUT_S)

    def _serve(self) -> None:
        broker: Broker | None = None
        while True:
            self._rung.wait()
            self._rung.clear()
            try:
                broker = broker or self._open_broker()
                [error] = broker.publish([_wake_message()], timeout_s=_TIMEOUT_S)
                if error is not None:
                    logger.debug("wakeup.missed", extra={"reason": error})
                if not self._rung.is_set():
                    self._told.set()
            # A daemon's loop: whatever is wrong with the broker, the sweep does the work.
            except Exception:
                logger.warning("wakeup.failed", exc_info=True)
                threading.Event().wait(_PAUSE_S)


def _before_the_end(call: Callable[..., object], *arguments: object) -> None:
    """Have this called when the process ends, as long as it can still open a connection.

    `atexit` is too late: names can't be looked up any more, since the pools of threads have ended.
    """
    # Called before that end: what was registered last comes first.
    threading._register_atexit(call, *arguments)  # type: ignore[attr-defined]  # noqa: SLF001


def _wake_message() -> Message:
    return Message(
        exchange=CONTROL_EXCHANGE,
        routing_key=PUBLISHER_KEY,
        body=Wake().to_bytes(),
        type="wake",
        is_mandatory=False,
        is_persistent=False,
    )


_bell = Bell(lambda: RabbitBroker(settings.SHEPHERD.broker_url, name="web"))


def wake() -> None:
    """Tell the Task Publisher, soon and without waiting, that something was accepted."""
    _bell.ring()
