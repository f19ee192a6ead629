"""One line for each row of faults, kept for the end of the test run."""

from tests.support import closing
from tests.support.faults.checker import Findings

_broker = ""


def set_broker(name: str) -> None:
    """Say in the lines from now on which broker they are about; empty where it is the installed one."""
    global _broker  # noqa: PLW0603  # one report for all suites of a test run
    _broker = name


def report(row: str, fault: str, *, injected: int, found: Findings, more: str = "") -> str:
    """Write the row's line, and return it."""
    line = (
        f"row {row:>5}  {fault}{f' on {_broker}' if _broker else ''}: injected {injected}, lost {len(found.lost)}, "
        f"recorded twice {len(found.recorded_twice)}, stale recorded {len(found.stale)}, "
        f"executions beyond {len(found.beyond)}{'; ' + more if more else ''}"
    )
    closing.leave("faults", line)
    print(line)
    return line
