"""Whether this worker sees the Task Publisher's store, and what becomes of tasks that need it where it doesn't."""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from shepherd.errors import ShepherdError
from shepherd.store.port import Store
from shepherd.wire.control import StoreMark

logger = logging.getLogger(__name__)

#: How often a worker that doesn't see the store looks again, in beats: a mount or a server may come back.
_LOOK_EVERY: Final = 1.0
#: In beats: the first pause after a task was handed back, the longest, and how often one is. RabbitMQ gives up at 20.
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 6.0
_HANDED_BACK: Final = 6
#: Marks that are known to be seen.
_MOST_KNOWN: Final = 100


class Sight:
    """What a worker knows of the Task Publisher's store. As long as nothing is known, it is taken for seen."""

    def __init__(self, store: Store, *, beat_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._beat_s = beat_s
        self._now = now
        self._changed = threading.Condition()
        self._wanted: StoreMark | None = None
        self._seen: list[StoreMark] = []
        self._trouble = ""
        self._pausing_until = 0.0
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """Why data can't be shared with the Task Publisher, naming both stores; empty while nothing is against it."""
        return self._trouble

    @property
    def is_looking(self) -> bool:
        """Whether `wait_known` would wait."""
        return self._wanted is not None and not self._trouble

    @property
    def pause_s(self) -> float:
        """For how many seconds nothing is to be taken, so that others get what was handed back."""
        return max(0.0, self._pausing_until - self._now())

    def hear(self, mark: StoreMark | None) -> None:
        """Find out, in a thread, whether this mark is seen; until then `wait_known` waits."""
        with self._changed:
            if mark is None or mark in self._seen or mark == self._wanted:
                return
            self._wanted = mark
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shepherd-sight", daemon=True)
                self._thread.start()

    def wait_known(self, *, timeout_s: float) -> None:
        """Return when no look is under way, or after this time."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted is None or self._trouble, timeout_s)

    def is_needed_by(self, message: bytes, field: str) -> bool:
        """Tell whether a field of a message, `data` or `result`, isn't in the message itself, but in a store."""
        with suppress(ValueError, RecursionError):
            document: Any = json.loads(message)
            value = document.get(field) if isinstance(document, dict) else None
            return isinstance(value, dict) and "inline" not in value
        return False

    def hand_back(self, times: int, *, within_s: float) -> bool:
        """Return whether a task that was handed back so often should be once more, `within_s`; then all slots pause.

        Others that see the store get it meanwhile. A worker that is alone with it answers in the end.
        """
        if times >= _HANDED_BACK:
            return False
        pause_s = self._beat_s * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**times)
        self._pausing_until = max(self._pausing_until, self._now() + within_s + pause_s)
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                mark = self._wanted
            assert mark is not None
            trouble = self._look(mark)
            with self._changed:
                if mark != self._wanted:
                    continue
                self._note(mark, trouble)
                self._changed.notify_all()
                if trouble:
                    self._changed.wait(self._beat_s * _LOOK_EVERY)

    def _look(self, mark: StoreMark) -> str:
        try:
            self._store.read(mark.claim)
        except ShepherdError as error:
            return _why(self._store.url, mark.url, error)
        except Exception as error:  # a daemon's loop: what is wrong is said, and looked at again
            logger.exception("sight.failed")
            return _why(self._store.url, mark.url, error)
        return ""

    def _note(self, mark: StoreMark, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            so = "a task whose data lies there is left to other workers, and what a task returns must be small JSON"
            logger.error("worker.sees_another_store", extra={"why": trouble, "so": so})
        elif self._trouble and not trouble:
            logger.info("worker.sees_the_store", extra={"store": self._store.url})
        self._trouble = trouble
        if not trouble:
            self._seen = [*self._seen, mark][-_MOST_KNOWN:]
            self._wanted = None


def _why(ours: str, theirs: str, error: Exception) -> str:
    if ours.rstrip("/") != theirs.rstrip("/"):
        return f"this worker keeps data in {ours}, the Task Publisher in {theirs} (SHEPHERD_STORE)"
    return f"{ours} here isn't the Task Publisher's store, which is called alike: {error} (SHEPHERD_STORE)"
