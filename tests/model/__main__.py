"""`python -m tests.model [WORDS]`: explores more than the tests do, and prints how many states there are.

With words only what has them in its name.
"""

import sys
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401  # Sets Django up, as for all tests.
from tests.model.bounds import Bounds
from tests.model.model import Report, investigate
from tests.model.suites import LONG, QUICK
from tests.support.databases import migrate, pointed_at


def main(words: str) -> int:
    reports = []
    for name, bounds in {**QUICK, **LONG}.items():
        if words in name:
            reports.append(_explored(name, bounds))
            print(f"model: {reports[-1]}", flush=True)
    faults = sum(report.found is not None for report in reports)
    print(f"model: {sum(report.states for report in reports)} states in all, {faults} faults found")
    return min(faults, 1)


def _explored(name: str, bounds: Bounds) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'model.sqlite3'}"
        migrate(url)
        with pointed_at(url):
            return investigate(name, bounds)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
