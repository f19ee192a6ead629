"""`system` is up and shared by all tests that leave it as they found it; `new_system` is for those that don't."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.system import System, started


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    with started() as shared:
        yield shared


@pytest.fixture
def new_system() -> Iterator[Callable[..., System]]:
    """Return a function that starts a system, with the arguments of `started`; all end with the test."""
    with ExitStack() as systems:

        def start(**arguments: Any) -> System:
            return systems.enter_context(started(**arguments))

        yield start
