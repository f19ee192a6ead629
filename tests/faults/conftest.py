"""Fault suites: systems of real processes that tests share and break, and a line for each row."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.faults import report
from tests.support.faults.system import FaultSystem, fault_system
from tests.support.faults.thoroughness import is_full, is_over
from tests.support.given_brokers import BROKERS, GIVEN, INSTALLED


@pytest.fixture(scope="session", params=BROKERS)
def which_broker(request: pytest.FixtureRequest) -> str:
    """The broker's name; modules that stop it or read its files say `ON_INSTALLED`."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared_system(which_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """Two workers with two slots each, one Task Publisher, SQLite: for all modules that don't define another one."""
    with ExitStack() as at_end:
        given = None if which_broker == INSTALLED else at_end.enter_context(GIVEN[which_broker].virtual_host())
        report.set_broker("" if which_broker == INSTALLED else which_broker)
        yield at_end.enter_context(fault_system(tmp_path_factory.mktemp("faults"), workers=2, broker=given))
        report.set_broker("")


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
    # What has begun is ended. What hasn't is counted at the end, and is no failure: the time was somebody's choice.
    if is_over():
        pytest.skip("the MINUTES are over")  # of `make chaos`, see above; never in `make test`


#: Only in full: it takes ten minutes.
collect_ignore = [] if is_full() else ["test_cluster.py"]
