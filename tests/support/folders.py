"""Where the tests' services keep what they write."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_FOLDER = ROOT / ".shepherd" / "test"
