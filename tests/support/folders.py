"""Where the tests' services keep what they write."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What all processes of one test run share.
SHARED_FOLDER = ROOT / ".shepherd" / "test"
#: What this process has for itself: `make test` runs several, each with services of its own.
TEST_FOLDER = SHARED_FOLDER / os.environ.get("PYTEST_XDIST_WORKER", "alone")
