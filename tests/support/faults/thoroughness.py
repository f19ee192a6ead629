"""How much of the fault suites a test run tries."""

import os


def is_full() -> bool:
    """Return whether everything is wanted, as `make chaos` does; otherwise what fits into a few minutes."""
    return bool(os.environ.get("FAULTS_FULL"))
