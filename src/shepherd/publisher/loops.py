"""A daemon's loops: each in a thread of its own, each going on after whatever went wrong."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from django.db import close_old_connections, connections

logger = logging.getLogger(__name__)

_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


class Loop:
    """Calls a step again and again, until it is stopped. A step waits by itself, for a second at most."""

    def __init__(self, name: str, step: Callable[[], None]) -> None:
        self._name = name
        self._step = step
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; what the current step has begun is finished."""
        self._stopped.set()

    def join(self, *, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                self._step()
                failures = 0
            except Exception as error:
                # The same fault again is one line, not a traceback a second.
                logger.warning("loop.failed", extra={"loop": self._name, "reason": repr(error)}, exc_info=failures == 0)
                # A connection that broke is replaced; one that works is kept.
                close_old_connections()
                self._stopped.wait(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
        connections.close_all()
