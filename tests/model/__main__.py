"""`python -m tests.model`: explores more than the tests do, and prints how many states there are."""

import sys
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401  # Sets Django up, as for all tests.
from tests.model.model import investigate
from tests.model.suites import LONG, QUICK
from tests.support.databases import migrate, pointed_at


def main() -> int:
    suites = {**QUICK, **LONG}
    faults = 0
    for name, bounds in suites.items():
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'model.sqlite3'}"
            migrate(url)
            with pointed_at(url):
                report = investigate(name, bounds)
        print(f"model: {report}", flush=True)
        faults += report.found is not None
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
