"""Standing consumers and intakes: what goes on over one connection after the other. Knows no protocol.

`close`, `take`, `ack` and `release` are for any thread; the coroutines, and all of `Link` and `Lane`, for the loop's.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from shepherd.broker.inbox import Inbox
from shepherd.broker.port import Delivery
from shepherd.errors import BrokerUnavailableError

#: A consumer to which nothing came for this long is opened anew: RabbitMQ may lose one silently, as when its queue
#: is deleted and declared again at once.
_IDLE_S: Final = 10.0
#: Control messages are small and few.
_LISTEN_PREFETCH: Final = 100


class Lane(Protocol):
    """One channel. Whatever waits on it raises when it breaks; what is told to a broken one is passed over."""

    #: Done when the channel is closed, by whomever, or the broker has cancelled a consumer of it.
    gone: asyncio.Future[None]

    async def consume(self, queue: str, arrived: "Callable[[Sequence[Received]], None]") -> None: ...
    async def listen(
        self, exchange: str, keys: Sequence[str], arrived: "Callable[[Sequence[Received]], None]"
    ) -> None: ...
    async def get(self, queue: str) -> "Received | None": ...
    async def cancel_consumers(self) -> None:
        """Return when the broker has confirmed that nothing more will come."""

    def ack(self, tags: Sequence[int]) -> None: ...
    def requeue(self, tags: Sequence[int]) -> None: ...
    async def close(self) -> None: ...


class Link(Protocol):
    """One connection to the broker, from its opening to its end."""

    async def lane(self, *, prefetch: int) -> Lane: ...
    def presence(self, queue: str) -> asyncio.Task[None]:
        """Return what is done once the queue exists, or the link has ended."""

    def forget(self, queue: str) -> None:
        """Have the queue looked for again: it may have been deleted."""


class Host(Protocol):
    def post(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run a callback on the loop's thread, in the order of the posts."""

    def dismiss(self, standing: "Standing") -> None:
        """Cancel what serves it, and wait for that."""


@dataclass(slots=True, eq=False, kw_only=True)
class Received:
    """A `Delivery` that knows where it came from."""

    lane: Lane
    tag: int
    queue: str
    body: bytes
    message_id: str
    is_redelivered: bool
    #: As they came, and what reads them: hardly anybody wants to know.
    properties: bytes
    read_headers: Callable[[bytes], Mapping[str, Any]]
    is_settled: bool = False

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.read_headers(self.properties)


def _settle(deliveries: Sequence[Delivery], *, is_done: bool) -> None:
    # Settling twice is harmless here, while RabbitMQ closes a channel for an unknown tag.
    ours = [delivery for delivery in deliveries if isinstance(delivery, Received) and not delivery.is_settled]
    for lane, group in groupby(ours, key=lambda delivery: delivery.lane):
        tell = lane.ack if is_done else lane.requeue
        tell([delivery.tag for delivery in group])
    for delivery in ours:
        delivery.is_settled = True


def _ack(deliveries: Sequence[Delivery]) -> None:
    _settle(deliveries, is_done=True)


def _requeue(deliveries: Sequence[Delivery]) -> None:
    _settle(deliveries, is_done=False)


class Standing:
    """Something that consumes as long as it stands, over one connection after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._inbox: Inbox[Delivery] = Inbox()
        self._arrivals = 0

    async def serve(self, link: Link) -> None:
        """Consume until the channel is gone, or nothing has come for so long that it may be."""
        raise NotImplementedError

    async def _until_gone_or_idle(self, lane: Lane) -> None:
        before = -1
        while before != self._arrivals or self._is_holding():
            before = self._arrivals
            await _first(lane.gone, within_s=_IDLE_S)
            if lane.gone.done():
                return

    def _is_holding(self) -> bool:
        """Whether something is in hand that can only be settled on the channel that brought it."""
        return False

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._arrivals += 1
        if not self._inbox.put(deliveries):
            _requeue(deliveries)

    def _tell(self, settle: Callable[[Sequence[Delivery]], None], deliveries: Sequence[Delivery]) -> None:
        self._host.post(settle, deliveries)

    def close(self) -> None:
        self._tell(_requeue, self._inbox.close())
        self._host.dismiss(self)


class StandingSubscription(Standing):
    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        return self._inbox.take(at_most=at_most, wait_s=wait_s)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(_ack, deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(_requeue, deliveries)


class QueueSubscription(StandingSubscription):
    def __init__(self, host: Host, queue: str, *, prefetch: int) -> None:
        super().__init__(host)
        self._queue = queue
        self._prefetch = prefetch
        self._unsettled: deque[Received] = deque()

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._unsettled.extend(deliveries)
        super()._arrived(deliveries)
        while self._unsettled and self._unsettled[0].is_settled:
            self._unsettled.popleft()

    def _is_holding(self) -> bool:
        return any(not delivery.is_settled for delivery in self._unsettled)

    async def serve(self, link: Link) -> None:
        await asyncio.shield(link.presence(self._queue))
        lane = await link.lane(prefetch=self._prefetch)
        try:
            await lane.consume(self._queue, self._arrived)
            await self._until_gone_or_idle(lane)
        finally:
            link.forget(self._queue)
            self._inbox.drain()
            self._unsettled.clear()
            await lane.close()


class Listener(StandingSubscription):
    def __init__(self, host: Host, exchange: str, binding_keys: Sequence[str]) -> None:
        super().__init__(host)
        self._exchange = exchange
        self._binding_keys = binding_keys

    async def serve(self, link: Link) -> None:
        lane = await link.lane(prefetch=_LISTEN_PREFETCH)
        try:
            await lane.listen(self._exchange, self._binding_keys, self._arrived)
            await _first(lane.gone)
        finally:
            self._inbox.drain()
            await lane.close()


class StandingIntake(Standing):
    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._held: Received | None = None

    def take(self, *, wait_s: float) -> Delivery | None:
        return next(iter(self._inbox.take(at_most=1, wait_s=wait_s)), None)

    def ack(self, delivery: Delivery) -> None:
        self._tell(_ack, [delivery])

    def release(self, delivery: Delivery) -> None:
        self._tell(_requeue, [delivery])

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._held = deliveries[-1]
        super()._arrived(deliveries)

    def _is_holding(self) -> bool:
        return self._held is not None and not self._held.is_settled

    async def _leave(self, lane: Lane) -> None:
        _requeue(self._inbox.drain())
        if not self._is_holding() or lane.gone.done():
            await lane.close()
        else:
            # What is in hand can only be acked on the channel that brought it.
            await lane.cancel_consumers()


class SingleIntake(StandingIntake):
    """One queue: a consumer with prefetch 1 that stands."""

    def __init__(self, host: Host, queue: str) -> None:
        super().__init__(host)
        self._queue = queue

    async def serve(self, link: Link) -> None:
        await asyncio.shield(link.presence(self._queue))
        lane = await link.lane(prefetch=1)
        try:
            await lane.consume(self._queue, self._arrived)
            await self._until_gone_or_idle(lane)
        finally:
            link.forget(self._queue)
            await self._leave(lane)


class RotatingIntake(StandingIntake):
    """Several queues. Prefetch counts per consumer, so standing consumers would be given one delivery each.

    So a free slot asks its queues in turn with `basic.get`; only when all are empty does it open a consumer for each,
    keep the first delivery, cancel them all and hand back what crossed.
    """

    def __init__(self, host: Host, queues: Sequence[str]) -> None:
        super().__init__(host)
        #: The one whose turn it is first.
        self._queues = deque(queues)
        self._is_wanted = False
        self._changed = asyncio.Event()

    def take(self, *, wait_s: float) -> Delivery | None:
        self._host.post(self._want)
        return super().take(wait_s=wait_s)

    def _want(self) -> None:
        # What is held and unsettled is what this `take` gets: it arrived just before.
        if not self._is_holding():
            self._is_wanted = True
            self._changed.set()

    async def serve(self, link: Link) -> None:
        lane = await link.lane(prefetch=1)
        lane.gone.add_done_callback(lambda _: self._changed.set())
        self._held = None
        try:
            while not lane.gone.done():
                if self._is_wanted:
                    self._arrived([await self._fetch(link, lane)])
                    self._is_wanted = False
                await self._changed.wait()
                self._changed.clear()
        finally:
            for queue in self._queues:
                link.forget(queue)
            untaken = self._inbox.drain()
            _requeue(untaken)
            self._is_wanted = self._is_wanted or bool(untaken)
            await self._leave(lane)

    async def _fetch(self, link: Link, lane: Lane) -> Received:
        while True:
            present = [queue for queue in self._queues if link.presence(queue).done()]
            for queue in present:
                if (delivery := await lane.get(queue)) is not None:
                    return self._turn(delivery)
            if (delivery := await self._await_any(link, lane, present)) is not None:
                return self._turn(delivery)

    def _turn(self, delivery: Received) -> Received:
        self._queues.rotate(-1 - self._queues.index(delivery.queue))
        return delivery

    async def _await_any(self, link: Link, lane: Lane, present: Sequence[str]) -> Received | None:
        """Return what comes first to one of these queues, or None when they should be looked at again."""
        arrived: list[Received] = []
        has_arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def keep(deliveries: Sequence[Received]) -> None:
            arrived.extend(deliveries)
            if not has_arrived.done():
                has_arrived.set_result(None)

        missing = [link.presence(queue) for queue in self._queues if queue not in present]
        try:
            for queue in present:
                if not arrived:
                    await lane.consume(queue, keep)
            await _first(lane.gone, has_arrived, *missing, within_s=_IDLE_S)
        finally:
            await lane.cancel_consumers()
            _requeue(arrived[1:])
        if lane.gone.done():
            raise BrokerUnavailableError("the channel was closed")
        return arrived[0] if arrived else None


async def _first(*futures: asyncio.Future[None], within_s: float | None = None) -> None:
    """Wait for any of these, and leave them as they are, also when cancelled."""
    await asyncio.wait(futures, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
