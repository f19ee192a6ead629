"""The server behind `memory.py`: queues, exchanges and bindings, as RabbitMQ treats them."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from shepherd.broker.port import Comparison, ExchangeSpec, Message, Presence, QueueSpec
from shepherd.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    QueueMissingError,
    TransientError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A message in a queue; a lower number goes first."""

    number: int
    message: Message
    headers: Mapping[str, Any] = field(default_factory=dict)
    deliveries: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class MemoryDelivery:
    stored: _Stored
    queue: str

    @property
    def body(self) -> bytes:
        return self.stored.message.body

    @property
    def message_id(self) -> str:
        return self.stored.message.message_id

    @property
    def is_redelivered(self) -> bool:
        return self.stored.deliveries > 0

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.stored.headers


class _Queue:
    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.ready: deque[_Stored] = deque()
        self.unacked = 0

    @property
    def is_full(self) -> bool:
        return len(self.ready) >= float(self.arguments.get("x-max-length", "inf"))

    @property
    def refuses(self) -> bool:
        return self.is_full and bool(self.arguments.get("x-overflow") == "reject-publish")

    def put(self, stored: _Stored) -> None:
        if self.is_full:
            self.ready.popleft()
        self.ready.append(stored)

    def put_back(self, stored: _Stored) -> None:
        """Return a message to where it was, not to the end."""
        self.ready = deque(sorted([*self.ready, stored], key=lambda one: one.number))


class MemoryServer:
    """What a RabbitMQ server is to its clients: queues, exchanges and bindings that outlive every connection."""

    def __init__(self) -> None:
        #: Guards everything here and in the clients; notified of every change.
        self.changed = threading.Condition()
        self.is_up = True
        #: How often it has come up.
        self.starts = 1
        self.queues: dict[str, _Queue] = {}
        self._exchanges: dict[str, str] = {}
        self._bindings: set[tuple[str, str, str]] = set()
        self._numbers = count(1)
        self._on_break: list[Callable[[], None]] = []

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue, those in hand not counted."""
        with self.changed:
            return len(self.queues[queue].ready)

    def unacked(self, queue: str) -> int:
        with self.changed:
            return self.queues[queue].unacked

    def delete_queue(self, queue: str) -> None:
        with self.changed:
            self.queues.pop(queue, None)
            self._bindings = {binding for binding in self._bindings if binding[2] != queue}

    def go_down(self) -> None:
        """Break every connection: what is in hand goes back, and nothing can be published until `come_back`."""
        with self.changed:
            self.is_up = False
            for give_back in self._on_break:
                give_back()
            self.changed.notify_all()

    def come_back(self) -> None:
        with self.changed:
            self.is_up = True
            self.starts += 1
            self.changed.notify_all()

    def join(self, on_break: Callable[[], None]) -> None:
        """Have a client told when its connection breaks."""
        with self.changed:
            self._on_break.append(on_break)

    def declare_exchange(self, spec: ExchangeSpec) -> None:
        if self._exchanges.setdefault(spec.name, spec.kind) != spec.kind:
            raise ConfigurationError(f"the broker refuses exchange {spec.name!r}: it exists with another 'type'")

    def declare_queue(self, spec: QueueSpec) -> None:
        queue = self.queues.setdefault(spec.name, _Queue(spec.name, spec.arguments))
        for argument in sorted(queue.arguments.keys() | spec.arguments.keys()):
            if queue.arguments.get(argument) != spec.arguments.get(argument):
                raise ConfigurationError(f"the broker refuses queue {spec.name!r}: it exists with another {argument!r}")
        for exchange, key in spec.bindings:
            if exchange not in self._exchanges:
                raise ConfigurationError(f"the broker refuses queue {spec.name!r}: no exchange {exchange!r}")
            self.bind(exchange, key, queue=spec.name)

    def compare_exchange(self, spec: ExchangeSpec) -> Comparison:
        if spec.name not in self._exchanges:
            return Comparison(name=spec.name, presence=Presence.MISSING)
        return self._compared(spec.name, lambda: self.declare_exchange(spec))

    def compare_queue(self, spec: QueueSpec) -> Comparison:
        if (queue := self.queues.get(spec.name)) is None:
            return Comparison(name=spec.name, presence=Presence.MISSING)
        unbound = replace(spec, bindings=())
        return self._compared(spec.name, lambda: self.declare_queue(unbound), messages=len(queue.ready))

    def _compared(self, name: str, declare: Callable[[], None], *, messages: int = 0) -> Comparison:
        try:
            declare()
        except ConfigurationError as error:
            return Comparison(name=name, presence=Presence.DIFFERENT, reason=str(error))
        return Comparison(name=name, presence=Presence.SAME, messages=messages)

    def bind(self, exchange: str, key: str, *, queue: str) -> None:
        self._bindings.add((exchange, key, queue))

    def route(self, message: Message, headers: Mapping[str, Any] | None = None) -> TransientError | None:
        if message.exchange and message.exchange not in self._exchanges:
            return BrokerUnavailableError(f"the broker did not confirm: there is no exchange {message.exchange!r}")
        queues = [self.queues[name] for name in self._targets(message) if name in self.queues]
        if not queues and message.is_mandatory:
            return QueueMissingError(f"no queue takes {message.routing_key!r} of exchange {message.exchange!r}")
        if any(queue.refuses for queue in queues):
            return BrokerUnavailableError(f"the broker did not confirm: {message.routing_key!r} is full")
        for queue in queues:
            queue.put(_Stored(number=next(self._numbers), message=message, headers=headers or {}))
        return None

    def _targets(self, message: Message) -> set[str]:
        if not message.exchange:
            return {message.routing_key}
        kind = self._exchanges[message.exchange]
        return {
            queue
            for exchange, pattern, queue in self._bindings
            if exchange == message.exchange and _matches(kind, pattern, message.routing_key)
        }

    def take(self, queue: str) -> MemoryDelivery | None:
        found = self.queues.get(queue)
        if found is None or not found.ready:
            return None
        found.unacked += 1
        return MemoryDelivery(stored=found.ready.popleft(), queue=queue)

    def settle(self, delivery: MemoryDelivery, *, is_done: bool) -> None:
        # No queue is no fault: it was deleted while the delivery was in hand.
        if (queue := self.queues.get(delivery.queue)) is None:
            return
        queue.unacked -= 1
        if not is_done:
            self._return(queue, replace(delivery.stored, deliveries=delivery.stored.deliveries + 1))

    def _return(self, queue: _Queue, stored: _Stored) -> None:
        if stored.deliveries <= queue.arguments.get("x-delivery-limit", float("inf")):
            queue.put_back(stored)
        elif exchange := queue.arguments.get("x-dead-letter-exchange"):
            death = {"queue": queue.name, "reason": "delivery_limit", "count": 1, "exchange": stored.message.exchange}
            headers = {**stored.headers, "x-death": [death]}
            self.route(replace(stored.message, exchange=exchange, is_mandatory=False), headers)


def _matches(kind: str, pattern: str, key: str) -> bool:
    if kind == "fanout":
        return True
    return pattern == key if kind == "direct" else _topic_matches(pattern.split("."), key.split("."))


def _topic_matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_topic_matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _topic_matches(pattern[1:], words[1:])
