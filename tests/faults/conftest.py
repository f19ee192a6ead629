"""Fault suites: a system of real processes that the tests of a module share and break, and a line for each row."""

from collections.abc import Iterator

import pytest

from tests.support.faults import report
from tests.support.faults.system import FaultSystem, fault_system


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """One worker with two slots, one Task Publisher, SQLite."""
    with fault_system(tmp_path_factory.mktemp("faults")) as ours:
        yield ours


@pytest.fixture
def faulty(shared_system: FaultSystem) -> FaultSystem:
    """The module's system, with all its processes up and nothing injected yet."""
    ours = shared_system
    ours.forget()
    ours.system.start()
    ours.system.wait_ready()
    return ours


@pytest.fixture(scope="session", autouse=True)
def _new_report() -> None:
    report.FILE.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(report.reported())
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)
