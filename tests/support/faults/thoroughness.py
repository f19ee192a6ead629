"""How much of the fault suites a test run tries."""

import os
import time


def is_full() -> bool:
    """Return whether everything is wanted, as `make chaos` does; otherwise what fits into a few minutes."""
    return bool(os.environ.get("FAULTS_FULL"))


def is_over() -> bool:
    """Return whether the time that somebody has for all of this is over, by `FAULTS_UNTIL` in seconds since 1970."""
    until = os.environ.get("FAULTS_UNTIL")
    return until is not None and time.time() > float(until)
