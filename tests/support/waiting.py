"""Waiting for what other processes do, with a deadline."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Between two looks.
_STEP_S = 0.05


def wait_until(look: Callable[[], T], *, timeout_s: float, what: str, every_s: float = _STEP_S) -> T:
    """Return the first true answer of `look`, which is asked at once, and then after each `every_s` seconds.

    Raises:
        TimeoutError: There was none in time; the text says `what` was waited for, and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {timeout_s:g} s, the last answer was {answer!r}")
        threading.Event().wait(every_s)
    return answer
