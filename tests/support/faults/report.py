"""One line for each row of faults, kept for the end of the test run."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.faults.checker import Findings
from tests.support.folders import TEST_FOLDER

FILE = TEST_FOLDER / "faults.txt"


def report(row: str, fault: str, *, injected: int, found: Findings, more: str = "") -> str:
    """Write the row's line, and return it."""
    line = (
        f"row {row:>5}  {fault}: injected {injected}, lost {len(found.lost)}, "
        f"recorded twice {len(found.recorded_twice)}, stale recorded {len(found.stale)}, "
        f"executions beyond {len(found.beyond)}{'; ' + more if more else ''}"
    )
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")
    print(line)
    return line


def reported(file: Path = FILE) -> Iterator[str]:
    """Return the lines of this test run, by row."""
    if file.exists():
        yield from sorted(file.read_text(encoding="utf-8").splitlines())
