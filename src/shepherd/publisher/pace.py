"""When replies are worth gathering: a transaction costs about the same for twenty of them as for two."""

import threading
from typing import Final

#: So many tasks are out that workers have enough to do while replies are gathered.
_ENOUGH_OUT: Final = 32
_GATHER_S: Final = 0.01


class Pace:
    """How busy this Task Publisher is, by what it has published and heard. A guess: only haste depends on it."""

    def __init__(self) -> None:
        self._out = 0
        self._latest = 0
        self._lock = threading.Lock()

    def published(self, count: int) -> None:
        with self._lock:
            self._out += count

    def heard(self, count: int) -> None:
        with self._lock:
            self._latest = count
            self._out = max(0, self._out - count)

    @property
    def gather_s(self) -> float:
        """How long to wait for more replies when the first is there. Nothing where anybody could wait for it.

        With few tasks out, workers wait for what their replies set free; a reply that came alone is followed by none.
        """
        return _GATHER_S if self._out >= _ENOUGH_OUT and self._latest > 1 else 0.0
