"""How many flows may keep Prefect busy at once, and who comes next."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self


class Slots:
    """A semaphore in which runs that wait for Prefect go before runs that Prefect only shows."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    @property
    def is_busy(self) -> bool:
        return self._free == 0 or bool(self._waiting)

    async def acquire(self, *, is_urgent: bool) -> None:
        if not self.is_busy:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (not is_urgent, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Slot:
    """A run's right to keep Prefect busy. Given up wherever the run waits for others."""

    def __init__(self, slots: Slots, *, is_urgent: bool) -> None:
        self._slots = slots
        self._is_urgent = is_urgent
        self._is_held = False

    async def __aenter__(self) -> Self:
        await self._take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give_up()

    @asynccontextmanager
    async def released(self) -> AsyncIterator[None]:
        self._give_up()
        try:
            yield
        finally:
            await self._take()

    async def _take(self) -> None:
        await self._slots.acquire(is_urgent=self._is_urgent)
        self._is_held = True

    def _give_up(self) -> None:
        # Not held after a cancellation that came while it waited for its turn.
        if self._is_held:
            self._is_held = False
            self._slots.release()
