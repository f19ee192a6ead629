"""A small object in the store, by which workers find out whether they see the same store."""

import logging
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from shepherd.errors import ConfigurationError, TransientError
from shepherd.store.port import Store
from shepherd.wire.control import StoreMark

logger = logging.getLogger(__name__)

#: Below it lie the marks of all Task Publishers, each for as long as one of them runs.
MARKS: Final = "shepherd/marks"
#: It is put again as often, so that one that is old belongs to nobody.
_RENEWED_EVERY: Final = timedelta(hours=1)
_REMOVED_WITHIN_S: Final = 3.0


class Marking:
    """This Task Publisher's mark. Not the URL alone: the same path may be another folder on another server."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._name = secrets.token_hex(16)
        self._mark: StoreMark | None = None
        self._renewed_at: datetime | None = None
        self._is_warned = False

    @property
    def mark(self) -> StoreMark | None:
        """What workers are told; None until the store has taken it."""
        return self._mark

    def renew(self) -> bool:
        """Put the mark if it is due, and return whether workers are yet to be told of it. May take minutes."""
        now = self._clock()
        if self._renewed_at is not None and abs(now - self._renewed_at) < _RENEWED_EVERY:
            return False
        try:
            key = f"{MARKS}/{self._name}"
            claim = self._store.put(self._name.encode(), key=key, media_type="text/plain")
        except (TransientError, ConfigurationError) as error:
            if not self._is_warned:
                logger.warning("store.unreachable", extra={"store": self._store.url, "why": str(error)})
            self._is_warned = True
            return False
        is_new = self._mark is None
        self._mark, self._renewed_at, self._is_warned = StoreMark(url=self._store.url, claim=claim), now, False
        return is_new

    def remove(self) -> None:
        """Take it away, without waiting long: one that stays is pruned."""
        if self._mark is not None:
            removing = threading.Thread(target=self._delete, name="store-mark", daemon=True)
            removing.start()
            removing.join(_REMOVED_WITHIN_S)

    def _delete(self) -> None:
        try:
            self._store.delete([f"{MARKS}/{self._name}"])
        except (TransientError, ConfigurationError) as error:
            logger.info("store.mark_stays", extra={"why": str(error)})
