"""Leaves what the model explored for the end of the test run."""

from collections.abc import Callable

import pytest

from tests.model.model import Report
from tests.support import closing


@pytest.fixture
def printed() -> Callable[[Report], Report]:
    """Has a report printed at the end, and returns it."""

    def note(report: Report) -> Report:
        closing.leave("model", f"model: {report}")
        return report

    return note
