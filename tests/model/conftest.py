"""Prints at the end what the model explored, whatever else is printed."""

from collections.abc import Callable

import pytest

from tests.model.model import Report

_PRINTED = pytest.StashKey[list[Report]]()


@pytest.fixture
def printed(pytestconfig: pytest.Config) -> Callable[[Report], Report]:
    """Has a report printed at the end, and returns it."""

    def note(report: Report) -> Report:
        pytestconfig.stash.setdefault(_PRINTED, []).append(report)
        return report

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in config.stash.get(_PRINTED, []):
        terminalreporter.write_line(f"model: {report}")
