"""Every interleaving of what the parts of the system do, with the real relay over the shipped fakes."""

from collections.abc import Callable

import pytest

from tests.model.model import Report, investigate
from tests.model.mutants import MUTANTS
from tests.model.suites import QUICK

pytestmark = pytest.mark.usefixtures("sqlite_database")


@pytest.mark.parametrize("name", QUICK)
def test_whatever_happens_in_whatever_order_each_run_ends_and_nothing_is_recorded_twice(
    name: str, printed: Callable[[Report], Report]
) -> None:
    report = printed(investigate(name, QUICK[name]))

    assert report.found is None, str(report.found)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_promise_is_found(name: str, printed: Callable[[Report], Report]) -> None:
    mutant = MUTANTS[name]

    report = printed(investigate(f"mutant: {name}", mutant.bounds, parts=mutant.parts))

    assert report.found is not None
    assert mutant.found_as in report.found.what
