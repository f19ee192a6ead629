"""What Shepherd wants of a message broker: `rabbitmq.py` is the real one, `memory.py` the fake, one suite tests both.

Everything here is synchronous and safe to call from any thread. A connection that breaks is rebuilt by the
adapter: what was delivered and not acked comes again, and an ack for a delivery of the broken connection does nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from shepherd.errors import TransientError

#: Bytes of a body. RabbitMQ 4 refuses larger ones by default (`max_message_size`); 3.10 would take 128 MiB.
LARGEST_MESSAGE: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A durable queue as the Task Publisher declares it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: (exchange, routing key) under which messages reach it, beside its own name on the default exchange.
    bindings: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec:
    """A durable exchange as the Task Publisher declares it."""

    name: str
    #: `topic`, `direct` or `fanout`.
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something to publish."""

    #: A queue's name on the default exchange, a key on another one.
    routing_key: str
    body: bytes
    exchange: str = ""
    #: For a task, the attempt's token: a supervisor knows what it holds without reading bodies. Made up if empty.
    message_id: str = ""
    #: The envelope's type.
    type: str = ""
    #: False for what may vanish when nobody listens (control messages) or the queue is full.
    is_mandatory: bool = True
    is_persistent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a broker tells everybody who logs in."""

    product: str
    version: str
    #: The name that all nodes of a cluster share.
    cluster: str


class Presence(StrEnum):
    """How what exists compares with what would be declared."""

    SAME = "same"
    MISSING = "missing"
    #: It exists on nodes that are away.
    AWAY = "away"
    #: It exists with another kind or other arguments: declaring it would be refused.
    DIFFERENT = "different"
    #: Whoever asks has no permission to declare it.
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One exchange or queue, looked at without changing anything."""

    name: str
    presence: Presence
    #: In the broker's words, where it is different or forbidden.
    reason: str = ""
    #: Of a queue that is there: messages that wait, and consumers.
    messages: int = 0
    consumers: int = 0


class Delivery(Protocol):
    """A message that the broker handed out and waits to be told about."""

    @property
    def body(self) -> bytes: ...
    @property
    def message_id(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def is_redelivered(self) -> bool: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...


class Subscription(Protocol):
    """A standing consumer of one queue. Re-established by itself after a broken connection, until it is closed."""

    @property
    def generation(self) -> int | None:
        """How often it has been established, counting from 1; None while it isn't.

        A consumer that is opened anew only because nothing came, over the same connection, counts as the same.
        What a `listen` would have heard while it wasn't established is lost: who can't bear that compares this number.
        Read it before `take`: what is taken then is of this generation or of a later one.
        """

    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Return what has arrived, at least one and at most `at_most`, or nothing after `wait_s` seconds."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are done with, without waiting for it; stale ones are passed over."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back to the queue, to be delivered again, as often as its delivery limit says."""

    def close(self) -> None:
        """Stop consuming; what was not acked goes back to the queue."""


class Intake(Protocol):
    """One slot's way to its next task, among one or several queues. Never holds more than one delivery."""

    def take(self, *, wait_s: float) -> Delivery | None:
        """Return the next delivery, or None after `wait_s` seconds, or when roused.

        Only to be called when the last one was acked or released, or is in the hands of whom it was offered to.
        Queues that don't exist yet are waited for. Several queues are taken from in turn, so that a full one doesn't
        starve the others.
        """

    @property
    def has_untaken(self) -> bool:
        """Whether something has come that no `take` has returned yet."""

    def offer_to(self, taker: Callable[[Delivery], bool]) -> None:
        """Offer what comes to a taker first, where there is a `Reactor`: on its thread, without waking another.

        True says that it takes the delivery, which it settles as if it had called `take`; it must neither wait nor
        raise.
        """

    def rouse(self) -> None:
        """Have the `take` under way, or else the next one, return at once."""

    @property
    def idle_s(self) -> float:
        """For how many seconds it has been waiting while none of its queues had anything; 0 if it isn't."""

    def pause(self) -> None:
        """Stop taking, until the next `take`; when this returns nothing more comes, and what crossed was handed back.

        A delivery in hand stays there, to be acked or released as ever.

        Raises:
            BrokerUnavailableError: No answer in time. Call again.
        """

    def ack(self, delivery: Delivery, *, goes_on: bool = False) -> None:
        """Tell the broker that it is done with, without waiting for it.

        `goes_on` has the next one fetched at once, for the `take` that follows. Where there is one queue it comes in
        any case: call `pause` first if none is wanted.
        """

    def release(self, delivery: Delivery) -> None:
        """Give it back to its queue, to be delivered again, as often as the queue's delivery limit says."""

    def close(self) -> None:
        """Stop taking. A delivery in hand may still be acked until the broker is closed."""


class Reactor(Protocol):
    """The thread on which a broker's messages arrive, for what can be done there without waiting for anything."""

    def watch(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        """Call back on that thread whenever there is something to read, or the other end is closed."""

    def unwatch(self, descriptor: int) -> None:
        """Call back no more; when this returns, the descriptor may be closed."""

    def send(
        self,
        message: Message,
        *,
        on_sent: Callable[[], None],
        on_settled: Callable[[TransientError | None], None],
    ) -> None:
        """Publish as `Broker.publish` does, without waiting; `on_settled` is told, on that thread, what became of it.

        A confirm may never come; what was refused is told at once, also before this returns.
        """


class Broker(Protocol):
    """A connection to a message broker that keeps itself alive."""

    @property
    def reactor(self) -> Reactor | None:
        """None where messages arrive on nobody's thread."""

    @property
    def is_connected(self) -> bool: ...

    def wait_connected(self, *, timeout_s: float) -> bool:
        """Return True as soon as there is a connection, False after `timeout_s` seconds."""

    def declare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> None:
        """Create what doesn't exist; what exists with the same arguments is left as it is.

        Raises:
            ConfigurationError: Something exists with other arguments, or a permission is missing; the text names both.
            BrokerUnavailableError: No answer in time. Some may have been declared; call again.
        """

    def server_info(self, *, timeout_s: float) -> ServerInfo:
        """Return what the broker at the other end is.

        Raises:
            BrokerUnavailableError: There was no connection in time; the text is the last reason why.
        """

    def compare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> list[Comparison]:
        """Tell for each whether `declare` would take it, exchanges first. What is missing stays missing.

        Raises:
            BrokerUnavailableError: No answer in time.
        """

    def delete(self, queues: Sequence[str]) -> None:
        """Remove queues with whatever is in them; what isn't there is no fault.

        For those that nobody needs. A quorum queue can't be told to go only if it is empty: look first, and afterwards
        publish again what may have come in between.

        Raises:
            ConfigurationError: A permission is missing; the text names it.
            BrokerUnavailableError: No answer in time. Some may be gone; call again.
        """

    def publish(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float = 10.0,
        on_sent: Callable[[], None] | None = None,
    ) -> list[TransientError | None]:
        """Publish all with one wait for all confirms; the answer has one entry a message, in their order.

        `on_sent` is called once all are on their way, and not if they never are: what it has the broker told over this
        connection comes after them. Whatever thread sends calls it, so it must neither wait nor raise.

        None is confirmed. A `QueueMissingError` stands for a mandatory message that no queue took, a
        `BrokerUnavailableError` for one that was refused or not confirmed in time, and which may or may not have
        arrived. Never raises these.
        """

    def subscribe(self, queue: str, *, prefetch: int) -> Subscription:
        """Consume a durable queue that exists or will; its absence is waited out."""

    def listen(self, exchange: str, *, binding_keys: Sequence[str]) -> Subscription:
        """Consume what is published to an exchange from now on, by way of an exclusive queue that vanishes with it."""

    def intake(self, queues: Sequence[str]) -> Intake: ...

    def close(self) -> None:
        """Close the connection and wait for its thread; deliveries in hand go back. Safe to call again."""
