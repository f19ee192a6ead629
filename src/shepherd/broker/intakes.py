"""A slot's way to its next task: among one queue, or several. For threads as `consumers.py` says."""

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from shepherd.broker.consumers import Host, Lane, Link, Received, Standing, ack, first, reject, requeue
from shepherd.broker.port import Delivery
from shepherd.errors import BrokerUnavailableError

#: As for a standing consumer.
_IDLE_S: Final = 10.0


class StandingIntake(Standing):
    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._held: Received | None = None
        #: Held by whoever begins or ends to consume.
        self._turning = asyncio.Lock()
        #: Something is to be looked at: a wish, a pause, the channel's end.
        self._changed = asyncio.Event()
        self._taker: Callable[[Delivery], bool] | None = None
        #: By the monotonic clock; None while it isn't waiting at empty queues.
        self._idle_since: float | None = None

    @property
    def idle_s(self) -> float:
        since = self._idle_since
        return 0.0 if since is None else time.monotonic() - since

    def take(self, *, wait_s: float) -> Delivery | None:
        return next(iter(self._inbox.take(at_most=1, wait_s=wait_s)), None)

    @property
    def has_untaken(self) -> bool:
        return bool(self._inbox)

    def offer_to(self, taker: Callable[[Delivery], bool]) -> None:
        self._taker = taker

    def pause(self) -> None:
        self._host.call(self._pause())

    @abstractmethod
    async def _pause(self) -> None: ...

    def ack(self, delivery: Delivery, *, goes_on: bool = False) -> None:
        self._tell(self._ack_and_go_on if goes_on else self._ack, [delivery])

    def release(self, delivery: Delivery) -> None:
        self._tell(self._reject, [delivery])

    def _ack(self, deliveries: Sequence[Delivery]) -> None:
        ack(deliveries)
        self._settled()

    def _ack_and_go_on(self, deliveries: Sequence[Delivery]) -> None:
        self._ack(deliveries)
        self._go_on()

    def _reject(self, deliveries: Sequence[Delivery]) -> None:
        reject(deliveries)
        self._settled()

    def _settled(self) -> None:
        """Go on with what waited for the slot."""

    def _go_on(self) -> None:
        """Fetch the next one, unless it comes by itself."""

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._held = deliveries[-1]
        self._idle_since = None
        if self._taker is not None and self._taker(self._held):
            self._arrivals += 1
        else:
            super()._arrived(deliveries)

    def _is_holding(self) -> bool:
        """Whether something is in hand that can only be settled on the channel that brought it."""
        return self._held is not None and not self._held.is_settled

    async def _leave(self, lane: Lane) -> None:
        requeue(self._inbox.drain())
        if not self._is_holding() or lane.gone.done():
            await lane.close()
        else:
            # What is in hand can only be acked on the channel that brought it.
            await lane.cancel_consumers()


class SingleIntake(StandingIntake):
    """One queue: a consumer with prefetch 1 that stands, but while it is paused."""

    def __init__(self, host: Host, queue: str) -> None:
        super().__init__(host)
        self._queue = queue
        self._lane: Lane | None = None
        self._is_paused = False
        self._is_consuming = False

    def __str__(self) -> str:
        return self._queue

    def take(self, *, wait_s: float) -> Delivery | None:
        if self._is_paused:
            self._host.post(self._resume)
        return super().take(wait_s=wait_s)

    def _resume(self) -> None:
        self._is_paused = False
        self._changed.set()

    async def _pause(self) -> None:
        async with self._turning:
            self._is_paused = True
            self._is_consuming = False
            self._idle_since = None
            if self._lane is not None and not self._lane.gone.done():
                await self._lane.cancel_consumers()
            requeue(self._inbox.drain())

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        if self._is_paused:
            requeue(deliveries)
        else:
            super()._arrived(deliveries)

    def _settled(self) -> None:
        if self._is_consuming:
            self._idle_since = time.monotonic()
        else:
            self._changed.set()

    async def serve(self, link: Link) -> None:
        await asyncio.shield(link.presence(self._queue))
        lane = self._lane = await link.lane(prefetch=1)
        lane.gone.add_done_callback(lambda _: self._changed.set())
        self._is_consuming = is_idle = False
        try:
            while not (lane.gone.done() or is_idle):
                async with self._turning:
                    await self._consume_if_wanted(lane)
                is_idle = await self._is_idle()
        finally:
            if not is_idle:
                self._idle_since = None
            self._is_consuming = False
            link.forget(self._queue)
            await self._leave(lane)

    async def _consume_if_wanted(self, lane: Lane) -> None:
        # Not while the slot still executes what another channel brought before it broke: it would hold two.
        if self._is_paused or self._is_consuming or self._is_holding():
            return
        self._is_consuming = True
        await lane.consume(self._queue, self._arrived)
        if self._idle_since is None and not self._is_holding():
            self._idle_since = time.monotonic()

    async def _is_idle(self) -> bool:
        """Return False as soon as there is something to look at, True when nothing came for a while."""
        before = -1
        while before != self._arrivals or self._is_holding() or not self._is_consuming:
            before = self._arrivals
            if await _is_set(self._changed, within_s=_IDLE_S):
                return False
        return True


class RotatingIntake(StandingIntake):
    """Several queues. Prefetch counts per consumer, so standing consumers would be given one delivery each.

    So a free slot asks its queues in turn with `basic.get`; only when all are empty does it open a consumer for each,
    keep the first delivery, cancel them all and hand back what crossed.
    """

    def __init__(self, host: Host, queues: Sequence[str]) -> None:
        super().__init__(host)
        #: The one whose turn it is first.
        self._queues = deque(queues)
        #: The slot is free, and has nothing that it could take.
        self._is_wanted = False
        self._is_paused = False
        #: Done when waiting at empty queues is no longer wanted.
        self._unwanted: asyncio.Future[None] | None = None

    def __str__(self) -> str:
        return ",".join(sorted(self._queues))

    def take(self, *, wait_s: float) -> Delivery | None:
        # With the ack of the one before it was asked for already.
        if self._is_paused or not self._is_wanted:
            self._host.post(self._want)
        return super().take(wait_s=wait_s)

    def _want(self) -> None:
        self._is_paused = False
        # What is held and unsettled is what this `take` gets: it arrived just before.
        if not self._is_holding():
            self._is_wanted = True
            self._changed.set()

    def _go_on(self) -> None:
        if not self._is_paused:
            self._want()

    async def _pause(self) -> None:
        self._is_paused = True
        self._is_wanted = False
        if self._unwanted is not None and not self._unwanted.done():
            self._unwanted.set_result(None)
        async with self._turning:
            self._idle_since = None
            requeue(self._inbox.drain())

    async def serve(self, link: Link) -> None:
        lane = await link.lane(prefetch=1)
        lane.gone.add_done_callback(lambda _: self._changed.set())
        try:
            while not lane.gone.done():
                if self._is_wanted:
                    async with self._turning:
                        self._accept(await self._fetch(link, lane))
                await self._changed.wait()
                self._changed.clear()
        finally:
            self._idle_since = None
            for queue in self._queues:
                link.forget(queue)
            untaken = self._inbox.drain()
            requeue(untaken)
            self._is_wanted = (self._is_wanted or bool(untaken)) and not self._is_paused
            await self._leave(lane)

    def _accept(self, delivery: Received | None) -> None:
        # First: with the delivery in its hands, the slot may look whether another one is to be asked for.
        is_wanted, self._is_wanted = self._is_wanted, False
        if delivery is not None:
            (self._arrived if is_wanted else requeue)([delivery])

    async def _fetch(self, link: Link, lane: Lane) -> Received | None:
        """Return the next delivery; None when none is wanted any more, as it was handed over or there is a pause."""
        while self._is_wanted:
            present = [queue for queue in self._queues if link.presence(queue).done()]
            for queue in present:
                if (delivery := await lane.get(queue)) is not None:
                    return self._turn(delivery)
            if self._idle_since is None:
                self._idle_since = time.monotonic()
            await self._await_any(link, lane, present)
        return None

    def _turn(self, delivery: Received) -> Received:
        self._queues.rotate(-1 - self._queues.index(delivery.queue))
        return delivery

    async def _await_any(self, link: Link, lane: Lane, present: Sequence[str]) -> None:
        """Hand over what comes first to one of these queues; return when they should be looked at again."""
        crossed: list[Received] = []
        has_arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwanted = asyncio.get_running_loop().create_future()

        def keep(deliveries: Sequence[Received]) -> None:
            crossed.extend(deliveries)
            if not has_arrived.done():
                has_arrived.set_result(None)
                if self._is_wanted:
                    # At once: the slot needn't wait until the consumers are cancelled.
                    self._accept(self._turn(crossed.pop(0)))

        missing = [link.presence(queue) for queue in self._queues if queue not in present]
        try:
            for queue in present:
                if not has_arrived.done() and self._is_wanted:
                    await lane.consume(queue, keep)
            if self._is_wanted:
                await first(lane.gone, has_arrived, self._unwanted, *missing, within_s=_IDLE_S)
        finally:
            await lane.cancel_consumers()
            # Not earlier: a consumer that still stands would be given them again.
            requeue(crossed)
        if lane.gone.done():
            raise BrokerUnavailableError("the channel was closed")


async def _is_set(event: asyncio.Event, *, within_s: float) -> bool:
    """Wait for an event, and clear it; False when it doesn't come in time."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
