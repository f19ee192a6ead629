"""Which faults there were, and when."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: What a fault may still cause after it is over: an attempt whose confirm it swallowed is published again after 5 s, a
#: connection that it broke is noticed late.
AFTERMATH_S = 30.0


@dataclass(slots=True, kw_only=True)
class Window:
    """One fault, from its beginning to its end, by `time.time()`."""

    kind: str
    began_at: float
    ended_at: float
    #: Whether what was being executed, or on its way, may be executed once more because of it.
    may_repeat: bool = True

    def touches(self, first: float, last: float) -> bool:
        return self.may_repeat and self.began_at <= last and first <= self.ended_at + AFTERMATH_S


class Injected:
    """The faults of one system."""

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def note(self, kind: str, *, may_repeat: bool = True) -> Window:
        """Remember a fault that happens now and is over at once."""
        now = time.time()
        self.windows.append(Window(kind=kind, began_at=now, ended_at=now, may_repeat=may_repeat))
        return self.windows[-1]

    @contextmanager
    def lasting(self, kind: str, *, may_repeat: bool = True) -> Iterator[Window]:
        window = self.note(kind, may_repeat=may_repeat)
        window.ended_at = float("inf")
        try:
            yield window
        finally:
            window.ended_at = time.time()

    def kinds(self) -> Counter[str]:
        return Counter(window.kind for window in self.windows)

    def __len__(self) -> int:
        return len(self.windows)
