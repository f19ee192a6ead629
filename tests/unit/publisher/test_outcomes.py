"""Flows wait for tasks' ends although the database is away for a while."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from shepherd.domain.status import TaskStatus
from shepherd.publisher.outcomes import Database, Outcome, Outcomes, look_up


class Away(Database):
    """Refuses so many calls, then answers from memory."""

    def __init__(self, refusals: list[Exception]) -> None:
        super().__init__(threads=1)
        self._refusals = refusals
        self.ended: set[int] = set()

    async def call(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        assert function is look_up, keywords
        if self._refusals:
            raise self._refusals.pop()
        return {number: self._outcome(number) for number in args[0]}

    def _outcome(self, number: int) -> Outcome:
        status = TaskStatus.SUCCEEDED if number in self.ended else TaskStatus.RUNNING
        return Outcome(status=status, is_run_over=False, has_retry=False, result=None, error=None)


async def _waited_for(database: Away, refusals: list[Exception]) -> Outcome:
    outcomes = Outcomes(database, look_every_s=0.01)
    watch = asyncio.ensure_future(outcomes.watch())
    waiting = asyncio.ensure_future(outcomes.ended(7))
    await asyncio.sleep(0)
    database._refusals += refusals
    database.ended.add(7)
    try:
        return await asyncio.wait_for(waiting, 10)
    finally:
        watch.cancel()


@pytest.mark.parametrize("refusal", [OperationalError("the database is away"), RuntimeError("anything else")])
def test_an_end_that_somebody_else_recorded_is_seen_although_a_look_failed(refusal: Exception) -> None:
    outcome = asyncio.run(_waited_for(Away([]), [refusal]))

    assert outcome.status == TaskStatus.SUCCEEDED


def test_a_look_waits_for_a_database_that_is_away() -> None:
    database = Away([OperationalError("away")])

    outcome = asyncio.run(Outcomes(database).look(7))

    assert outcome.status == TaskStatus.RUNNING


def test_what_else_is_wrong_is_not_tried_again() -> None:
    database = Away([RuntimeError("no such column")])

    with pytest.raises(RuntimeError):
        asyncio.run(Outcomes(database).look(7))
