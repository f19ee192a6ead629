"""Standing consumers: what goes on over one connection after the other. Knows no protocol.

`close`, `take`, `ack` and `release` are for any thread; the coroutines, and all of `Link` and `Lane`, for the loop's.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from shepherd.broker.inbox import Inbox
from shepherd.broker.port import Delivery

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
    def requeue(self, tags: Sequence[int]) -> None:
        """Give back what nobody has looked at."""

    def reject(self, tags: Sequence[int]) -> None:
        """Give back what was taken: the broker counts it, so that nothing is given out for ever."""

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

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop's thread and wait for its end; raises `BrokerUnavailableError` after a minute."""

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


def settle(deliveries: Sequence[Delivery], tell: "Callable[[Lane, Sequence[int]], None]") -> None:
    # Settling twice is harmless here, while RabbitMQ closes a channel for an unknown tag.
    ours = [delivery for delivery in deliveries if isinstance(delivery, Received) and not delivery.is_settled]
    for lane, group in groupby(ours, key=lambda delivery: delivery.lane):
        tell(lane, [delivery.tag for delivery in group])
    for delivery in ours:
        delivery.is_settled = True


def ack(deliveries: Sequence[Delivery]) -> None:
    settle(deliveries, lambda lane, tags: lane.ack(tags))


def requeue(deliveries: Sequence[Delivery]) -> None:
    settle(deliveries, lambda lane, tags: lane.requeue(tags))


def reject(deliveries: Sequence[Delivery]) -> None:
    settle(deliveries, lambda lane, tags: lane.reject(tags))


class Standing(ABC):
    """Something that consumes as long as it stands, over one connection after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._inbox: Inbox[Delivery] = Inbox()
        self._arrivals = 0

    @abstractmethod
    def __str__(self) -> str:
        """Return what it takes from, as logs name it."""

    @abstractmethod
    async def serve(self, link: Link) -> None:
        """Consume until the channel is gone, or nothing has come for so long that it may be."""

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._arrivals += 1
        if not self._inbox.put(deliveries):
            requeue(deliveries)

    def _tell(self, how: Callable[[Sequence[Delivery]], None], deliveries: Sequence[Delivery]) -> None:
        self._host.post(how, deliveries)

    def rouse(self) -> None:
        self._inbox.rouse()

    def close(self) -> None:
        self._tell(requeue, self._inbox.close())
        self._host.dismiss(self)


class StandingSubscription(Standing):
    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._established = 0
        self._is_established = False

    @property
    def generation(self) -> int | None:
        return self._established if self._is_established else None

    def _begin(self, *, is_continued: bool = False) -> None:
        self._established += 0 if is_continued else 1
        self._is_established = True

    def _end(self) -> None:
        # In this order: who reads the number before it takes gets nothing older than that.
        self._is_established = False
        self._inbox.drain()

    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        return self._inbox.take(at_most=at_most, wait_s=wait_s)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(ack, deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(reject, deliveries)


class QueueSubscription(StandingSubscription):
    def __init__(self, host: Host, queue: str, *, prefetch: int, idle_s: float = _IDLE_S) -> None:
        super().__init__(host)
        self._queue = queue
        self._prefetch = prefetch
        self._idle_s = idle_s
        #: The connection on which its consumer was given up only for being idle.
        self._idle_on: Link | None = None
        self._unsettled: deque[Received] = deque()

    def __str__(self) -> str:
        return self._queue

    def _arrived(self, deliveries: Sequence[Received]) -> None:
        self._unsettled.extend(deliveries)
        super()._arrived(deliveries)
        while self._unsettled and self._unsettled[0].is_settled:
            self._unsettled.popleft()

    async def serve(self, link: Link) -> None:
        await asyncio.shield(link.presence(self._queue))
        lane = await link.lane(prefetch=self._prefetch)
        try:
            await lane.consume(self._queue, self._arrived)
            self._begin(is_continued=self._idle_on is link)
            await self._until_gone_or_idle(lane)
            self._idle_on = None if lane.gone.done() else link
        finally:
            link.forget(self._queue)
            self._end()
            self._unsettled.clear()
            await lane.close()

    async def _until_gone_or_idle(self, lane: Lane) -> None:
        before = -1
        while before != self._arrivals or any(not delivery.is_settled for delivery in self._unsettled):
            before = self._arrivals
            await first(lane.gone, within_s=self._idle_s)
            if lane.gone.done():
                return


class Listener(StandingSubscription):
    def __init__(self, host: Host, exchange: str, binding_keys: Sequence[str]) -> None:
        super().__init__(host)
        self._exchange = exchange
        self._binding_keys = binding_keys

    def __str__(self) -> str:
        return f"{self._exchange}:{','.join(self._binding_keys)}"

    async def serve(self, link: Link) -> None:
        lane = await link.lane(prefetch=_LISTEN_PREFETCH)
        try:
            await lane.listen(self._exchange, self._binding_keys, self._arrived)
            self._begin()
            await first(lane.gone)
        finally:
            self._end()
            await lane.close()


async def first(*futures: asyncio.Future[None], within_s: float | None = None) -> None:
    """Wait for any of these, and leave them as they are, also when cancelled."""
    await asyncio.wait(futures, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
