"""Fault suites: systems of real processes that tests share and break, and a line for each row."""

from collections.abc import Iterator

import pytest

from tests.support.faults.system import FaultSystem, fault_system
from tests.support.faults.thoroughness import is_over


@pytest.fixture(scope="session")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """Two workers with two slots each, one Task Publisher, SQLite: for all modules that don't define another one."""
    with fault_system(tmp_path_factory.mktemp("faults"), workers=2) as ours:
        yield ours


@pytest.fixture
def faulty(shared_system: FaultSystem) -> FaultSystem:
    """A shared system, with all its processes up and nothing injected yet."""
    ours = shared_system
    ours.forget()
    ours.system.start()
    ours.system.wait_ready()
    return ours


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # What has begun is ended. What hasn't is named at the end, and is no failure: the time was somebody's choice.
    if is_over():
        pytest.skip("the MINUTES are over")
