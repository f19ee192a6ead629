"""Imported by every Python whose clock a fault suite has put forward or back."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    # libfaketime 0.9.10 hands clock_nanosleep, which Python's own sleep calls, a time that it refuses (EINVAL).
    select.select([], [], [], float(seconds))


time.sleep = _sleep
