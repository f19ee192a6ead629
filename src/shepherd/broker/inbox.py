"""Where deliveries wait between the thread that receives them and the one that works on them."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Inbox(Generic[_T]):
    """A queue between two threads that can be emptied and closed from either side."""

    def __init__(self) -> None:
        self._items: deque[_T] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_roused = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[_T]) -> bool:
        """Add items; False when the inbox is closed, and the items still the caller's."""
        with self._changed:
            if self._is_closed:
                return False
            self._items.extend(items)
            self._changed.notify()
            return True

    def take(self, *, at_most: int, wait_s: float) -> list[_T]:
        """Return what is there, at least one and at most `at_most`; nothing in time, once roused or closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed or self._is_roused, wait_s)
            self._is_roused = False
            return [self._items.popleft() for _ in range(min(at_most, len(self._items)))]

    def rouse(self) -> None:
        """Have the `take` under way, or else the next one, return at once."""
        with self._changed:
            self._is_roused = True
            self._changed.notify_all()

    def drain(self) -> list[_T]:
        """Return and forget all that nobody has taken."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            return items

    def close(self) -> list[_T]:
        """Wake who waits, refuse what comes, and return what nobody has taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        return self.drain()
