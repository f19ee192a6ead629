"""A broker in this process's memory: the shipped fake, held to the same tests as the real one.

Several `MemoryBroker`s on one `MemoryServer` are as many clients of one broker: a test can hold both sides. Unlike
RabbitMQ it hands a message out when somebody takes it, not before.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TypeVar

from shepherd.broker.memory_server import MemoryDelivery, MemoryServer
from shepherd.broker.port import (
    LARGEST_MESSAGE,
    Broker,
    Comparison,
    Delivery,
    ExchangeSpec,
    Intake,
    Message,
    QueueSpec,
    ServerInfo,
    Subscription,
)
from shepherd.errors import BrokerUnavailableError, ProtocolError, TransientError

_shared: dict[str, MemoryServer] = {}


def shared_server(url: str) -> MemoryServer:
    """Return the server that everybody in this process gets for this URL."""
    return _shared.setdefault(url, MemoryServer())


class MemoryBroker(Broker):
    """One client of a `MemoryServer`, of its own one when none is given."""

    def __init__(self, server: MemoryServer | None = None, *, name: str = "memory") -> None:
        self.server = server or MemoryServer()
        self.name = name
        #: Everything that this client has published and the broker has taken, in order.
        self.published: list[Message] = []
        self._is_closed = False
        self._consumers: list[_Consumer] = []
        self._anonymous = count(1)
        self.server.join(self.give_back)

    @property
    def is_connected(self) -> bool:
        return self.server.is_up and not self._is_closed

    @property
    def reactor(self) -> None:
        return None

    def wait_connected(self, *, timeout_s: float) -> bool:
        with self.server.changed:
            return self.server.changed.wait_for(lambda: self.is_connected, timeout_s)

    def declare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> None:
        with self.server.changed:
            if not self.is_connected:
                raise BrokerUnavailableError("the broker did not answer in time")
            for exchange in exchanges:
                self.server.declare_exchange(exchange)
            for queue in queues:
                self.server.declare_queue(queue)
            self.server.changed.notify_all()

    def server_info(self, *, timeout_s: float) -> ServerInfo:
        if not self.wait_connected(timeout_s=0 if self._is_closed else timeout_s):
            raise BrokerUnavailableError("the broker did not answer in time")
        return ServerInfo(product="memory", version="0", cluster="memory")

    def compare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> list[Comparison]:
        with self.server.changed:
            if not self.is_connected:
                raise BrokerUnavailableError("the broker did not answer in time")
            compared = [self.server.compare_exchange(exchange) for exchange in exchanges]
            return compared + [self.server.compare_queue(queue) for queue in queues]

    def delete(self, queues: Sequence[str]) -> None:
        with self.server.changed:
            if not self.is_connected:
                raise BrokerUnavailableError("the broker did not answer in time")
            for queue in queues:
                self.server.queues.pop(queue, None)

    def publish(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float = 10.0,
        on_sent: Callable[[], None] | None = None,
    ) -> list[TransientError | None]:
        for message in messages:
            if len(message.body) > LARGEST_MESSAGE:
                raise ProtocolError(f"a message for {message.routing_key!r} has {len(message.body)} bytes, too many")
        if not self.wait_connected(timeout_s=0 if self._is_closed else timeout_s):
            return [BrokerUnavailableError("the broker did not confirm in time") for _ in messages]
        with self.server.changed:
            outcomes = [self.server.route(message) for message in messages]
            self.published += [message for message, error in zip(messages, outcomes, strict=True) if error is None]
            self.server.changed.notify_all()
        if on_sent is not None and messages:
            on_sent()
        return outcomes

    def subscribe(self, queue: str, *, prefetch: int) -> Subscription:
        return self._consuming(_Subscription(self, [queue], prefetch=prefetch))

    def listen(self, exchange: str, *, binding_keys: Sequence[str]) -> Subscription:
        queue = f"amq.gen-{self.name}-{id(self)}-{next(self._anonymous)}"
        with self.server.changed:
            self.server.declare_queue(QueueSpec(name=queue))
            for key in binding_keys:
                self.server.bind(exchange, key, queue=queue)
        return self._consuming(_Listener(self, [queue], prefetch=100))

    def intake(self, queues: Sequence[str]) -> Intake:
        return self._consuming(_Intake(self, queues, prefetch=1))

    def _consuming(self, consumer: "_ConsumerT") -> "_ConsumerT":
        with self.server.changed:
            self._consumers.append(consumer)
        return consumer

    def close(self) -> None:
        with self.server.changed:
            self._is_closed = True
            for consumer in self._consumers:
                consumer.stop()
            self.give_back()

    def give_back(self) -> None:
        """Return all that is in hand to its queue, as a broken connection does."""
        for consumer in self._consumers:
            consumer.give_back()


class _Consumer:
    def __init__(self, broker: MemoryBroker, queues: Sequence[str], *, prefetch: int) -> None:
        self._broker = broker
        self._server = broker.server
        #: The one whose turn it is first.
        self._queues = deque(queues)
        self._prefetch = prefetch
        self._in_hand: list[MemoryDelivery] = []
        self._is_closed = False
        self._is_roused = False

    def _take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        taken: list[Delivery] = []

        def has_come() -> bool:
            taken.extend(self._next(at_most))
            return bool(taken) or self._is_closed or self._is_roused

        with self._server.changed:
            self._server.changed.wait_for(has_come, wait_s)
            self._is_roused = False
        return taken

    def _next(self, at_most: int) -> Iterator[Delivery]:
        while at_most > 0 and self._broker.is_connected and not self._is_closed and len(self._in_hand) < self._prefetch:
            delivery = next(filter(None, map(self._server.take, list(self._queues))), None)
            if delivery is None:
                return
            self._queues.rotate(-1 - self._queues.index(delivery.queue))
            self._in_hand.append(delivery)
            at_most -= 1
            yield delivery

    def _settle(self, deliveries: Sequence[Delivery], *, is_done: bool) -> None:
        with self._server.changed:
            for delivery in deliveries:
                # What is no longer in hand is stale: its connection broke, or it was settled before.
                if isinstance(delivery, MemoryDelivery) and delivery in self._in_hand:
                    self._in_hand.remove(delivery)
                    self._server.settle(delivery, is_done=is_done)
            self._server.changed.notify_all()

    def give_back(self) -> None:
        self._settle(list(self._in_hand), is_done=False)

    def stop(self) -> None:
        """Take nothing more. What is in hand stays there."""
        with self._server.changed:
            self._is_closed = True
            self._server.changed.notify_all()


_ConsumerT = TypeVar("_ConsumerT", bound=_Consumer)


class _Subscription(_Consumer):
    @property
    def generation(self) -> int | None:
        with self._server.changed:
            return self._server.starts if self._broker.is_connected and not self._is_closed else None

    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        return self._take(at_most=at_most, wait_s=wait_s)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(deliveries, is_done=True)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(deliveries, is_done=False)

    def close(self) -> None:
        self.stop()
        self.give_back()


class _Listener(_Subscription):
    """Its queue goes with it."""

    def stop(self) -> None:
        super().stop()
        with self._server.changed:
            for queue in self._queues:
                self._server.delete_queue(queue)


class _Intake(_Consumer):
    #: By the monotonic clock, since when nothing was there to take.
    _idle_since: float | None = None

    @property
    def idle_s(self) -> float:
        since = self._idle_since
        return time.monotonic() - since if since is not None and self._broker.is_connected else 0.0

    def take(self, *, wait_s: float) -> Delivery | None:
        if self._idle_since is None and not self._in_hand:
            self._idle_since = time.monotonic()
        delivery = next(iter(self._take(at_most=1, wait_s=wait_s)), None)
        if delivery is not None:
            self._idle_since = None
        return delivery

    @property
    def has_untaken(self) -> bool:
        return False

    def offer_to(self, taker: Callable[[Delivery], bool]) -> None:
        """Do nothing: there is no thread on which anything arrives."""

    def rouse(self) -> None:
        with self._server.changed:
            self._is_roused = True
            self._server.changed.notify_all()

    def pause(self) -> None:
        # Nothing comes unasked here.
        self._idle_since = None

    def ack(self, delivery: Delivery, *, goes_on: bool = False) -> None:  # noqa: ARG002  # Nothing comes unasked.
        self._settle([delivery], is_done=True)

    def release(self, delivery: Delivery) -> None:
        self._settle([delivery], is_done=False)

    def close(self) -> None:
        self.stop()
