"""How many calls that take long are answered at once: the web server's threads are for everybody."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shepherd.errors import TransientError


class Turns:
    """Safe to use from several threads."""

    def __init__(self, at_once: int, *, patience_s: float) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._patience_s = patience_s

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a turn, and have it for as long as the context lasts.

        Raises:
            TransientError: None came in time. The caller should ask again.
        """
        if not self._free.acquire(timeout=self._patience_s):
            raise TransientError("the server is busy with as many results as it prepares at once; ask again")
        try:
            yield
        finally:
            self._free.release()
