"""How tasks ended, for flows that wait for it: told by the relay, and looked up each second."""

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections

from shepherd.domain.status import ENDED_RUN, TaskStatus
from shepherd.pipelines.models import Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Value, parse_value

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds between two tries while the database is away.
_AGAIN_S: Final = 1.0

_ENDED_TASK: Final = (TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a task is."""

    status: TaskStatus
    is_run_over: bool
    #: Whether the relay opens its next attempt by itself, when a pause is over.
    has_retry: bool
    result: Value | None
    error: TaskError | None

    @property
    def is_unpublished(self) -> bool:
        """Whether somebody has yet to say what it is sent with."""
        return self.status == TaskStatus.PENDING and not self.has_retry

    @property
    def is_over(self) -> bool:
        return self.status in _ENDED_TASK or self.is_run_over


class Database:
    """The database for coroutines: a bounded pool of threads, so that no flow ever blocks the loop."""

    def __init__(self, *, threads: int = 8) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flow-database")

    async def call(self, function: Callable[..., _T], *args: Any, **keywords: Any) -> _T:
        def run() -> _T:
            close_old_connections()
            return function(*args, **keywords)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    async def insist(self, function: Callable[..., _T], *args: Any, **keywords: Any) -> _T:
        """Do the same, as often as it takes while the database is away: only for what may be done again."""
        while True:
            try:
                return await self.call(function, *args, **keywords)
            except (OperationalError, InterfaceError) as error:
                logger.warning("flow.database_away", extra={"reason": str(error)})
                await asyncio.sleep(_AGAIN_S)

    def close(self) -> None:
        """Wait until the calls under way have ended, with their threads: no more can be made."""
        self._pool.shutdown(wait=True)


class Outcomes:
    """Lets coroutines of one loop wait for the end of tasks."""

    def __init__(self, database: Database, *, look_every_s: float = 1.0) -> None:
        self._database = database
        self._look_every_s = look_every_s
        self._waiting: dict[int, set[asyncio.Event]] = {}

    async def look(self, task_number: int) -> Outcome:
        return (await self._database.insist(look_up, [task_number]))[task_number]

    async def ended(self, task_number: int) -> Outcome:
        """Return how a task ended, as soon as it has, or as soon as its run is over."""
        event = asyncio.Event()
        self._waiting.setdefault(task_number, set()).add(event)
        try:
            while not (outcome := await self.look(task_number)).is_over:
                await event.wait()
                event.clear()
            return outcome
        finally:
            self._forget(task_number, event)

    def tell(self, task_number: int) -> None:
        """Wake whoever waits for a task. To be called on the loop."""
        for event in self._waiting.get(task_number, ()):
            event.set()

    async def watch(self) -> None:
        """Look every second for the ends that nobody told us: another Task Publisher may have recorded them."""
        while True:
            await asyncio.sleep(self._look_every_s)
            try:
                for number in await self._over(list(self._waiting)):
                    self.tell(number)
            except Exception:
                # Without this look a flow waits for ever for what another Task Publisher has recorded.
                logger.exception("outcomes.look_failed")

    async def _over(self, numbers: Collection[int]) -> list[int]:
        if not numbers:
            return []
        found = await self._database.insist(look_up, numbers)
        return [number for number, outcome in found.items() if outcome.is_over]

    def _forget(self, task_number: int, event: asyncio.Event) -> None:
        self._waiting[task_number].discard(event)
        if not self._waiting[task_number]:
            del self._waiting[task_number]


def look_up(numbers: Collection[int]) -> dict[int, Outcome]:
    """Return where these tasks are, by number."""
    rows = Task.objects.filter(number__in=numbers).values_list(
        "number", "status", "run__status", "retry_at", "result", "error"
    )
    return {
        number: Outcome(
            status=TaskStatus(status),
            is_run_over=run_status in ENDED_RUN,
            has_retry=retry_at is not None,
            result=None if result is None else parse_value(result, path="result"),
            error=None if error is None else _error(error),
        )
        for number, status, run_status, retry_at, result, error in rows
    }


def _error(document: dict[str, Any]) -> TaskError:
    return TaskError(
        code=document["code"],
        message=document["message"],
        traceback=document.get("traceback", ""),
        is_retryable=document.get("retryable", False),
    )
