"""A model of the whole system around the real relay, and what exploring it showed."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import connection

from shepherd.domain.pipeline import PipelineSpec, TaskSpec
from shepherd.pipelines.acceptance import accept
from shepherd.pipelines.models import Task
from tests.model.bounds import Bounds
from tests.model.explorer import Explored, Found, explore
from tests.model.publisher import Parts, Publisher
from tests.model.rows import read
from tests.model.sayings import NAMES
from tests.model.state import KINDS, Memory, State, Worker
from tests.model.system import System
from tests.support.engine import PROJECT, Clock

#: One more after a failure, and one more after a loss.
TWO_ATTEMPTS: Final = {"retries": 1, "retry_on_lost": 1}


@dataclass(frozen=True, kw_only=True)
class Report:
    name: str
    states: int
    moves: int
    #: How many different databases there were, and how often real code was run.
    databases: int
    runs: int
    seconds: float
    found: Found | None

    def __str__(self) -> str:
        figures = (
            f"{self.name}: {self.states} states, {self.moves} moves, {self.databases} databases, "
            f"{self.runs} runs of real code, {self.seconds:.1f} s"
        )
        return figures if self.found is None else f"{figures}; found: {self.found}"


def investigate(
    name: str, bounds: Bounds, *, parts: Parts | None = None, policy: Mapping[str, Any] = TWO_ATTEMPTS
) -> Report:
    """Explore everything within bounds, from a run of two tasks that was just accepted. Needs an empty database."""
    began = time.monotonic()
    publisher = Publisher(parts or Parts(), is_led=bounds.is_led)
    system = System(publisher, bounds)
    _hurry()
    with hushed():
        explored: Explored = explore(system, _first(system, policy, NAMES[: bounds.tasks]))
    return Report(
        name=name,
        states=len(explored.states),
        moves=explored.moves,
        databases=len(system.rows),
        runs=publisher.runs,
        seconds=time.monotonic() - began,
        found=explored.found,
    )


def _first(system: System, policy: Mapping[str, Any], names: Sequence[str]) -> State:
    tasks = tuple(TaskSpec(index=at, order_no=at, name=name, context={}) for at, name in enumerate(names))
    spec = PipelineSpec(pipeline_name="p", data_url="", project=PROJECT, tasks=tasks)
    user, _ = User.objects.get_or_create(username="ana")
    accept(spec, by=user, now=Clock()())
    Task.objects.update(policy=dict(policy))
    return State(
        rows=system.number(read()[0]),
        queue=(),
        replies=(),
        workers=(Worker(), Worker()),
        memory=Memory(),
        spent=(0,) * len(KINDS),
        begun=(0,) * len(names),
    )


def _hurry() -> None:
    """Have SQLite not wait for the disk: nothing here outlives its process."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=MEMORY")
        cursor.execute("PRAGMA synchronous=OFF")


@contextmanager
def hushed() -> Iterator[None]:
    """Have nothing logged: much goes wrong here on purpose, and it all says so."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
