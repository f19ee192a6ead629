"""RabbitMQ behind the `Broker` port.

Longer than a module should be, since this is the only one that may know the AMQP client. `RabbitBroker` is the port,
for any thread. Below it, on the loop's thread only, `_Link` is one connection, never repaired but replaced; a channel
of it is a `Lane`, and what consumes over them is in `consumers.py`. What every message costs goes past the client: the
`Sieve` takes it out of what arrives, and the transport writes it (`frames.py`).

Everything here speaks to aiormq, the protocol layer of aio-pika: see docs/decisions/0003-aio-pika-behind-a-port.md.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import takewhile
from typing import Any, Final, TypeVar

import aiormq
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
)
from pamqp.header import ContentHeader
from yarl import URL

from shepherd.broker.addresses import broker_addresses
from shepherd.broker.consumers import Listener, QueueSubscription, Standing
from shepherd.broker.frames import Sieve
from shepherd.broker.intakes import RotatingIntake, SingleIntake
from shepherd.broker.lane import Lane
from shepherd.broker.loop_thread import LoopThread
from shepherd.broker.pacing import backoff, chunks
from shepherd.broker.parcel import Parcel
from shepherd.broker.port import (
    LARGEST_MESSAGE,
    Broker,
    Comparison,
    ExchangeSpec,
    Intake,
    Message,
    Presence,
    QueueSpec,
    Reactor,
    ServerInfo,
    Subscription,
)
from shepherd.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    ProtocolError,
    TransientError,
)

logger = logging.getLogger(__name__)

_HEARTBEAT_S: Final = 10
#: Between two echoes, and the wait for one: a half-open connection is noticed after both at the latest.
_ECHO_EVERY_S: Final = 5.0
_ECHO_S: Final = 5.0
#: One request to the broker.
_CALL_S: Final = 10.0
#: What is published.
_SEND_S: Final = 10.0
#: What consists of many requests.
_CALLS_S: Final = 60.0
#: What a farewell may take before the socket is cut.
_CLOSE_S: Final = 2.0
_BACKOFF_S: Final = (0.2, 5.0)
_PROBE_S: Final = (0.1, 1.0)
#: In bytes.
_READ: Final = 64 * 1024

_T = TypeVar("_T")
_StandingT = TypeVar("_StandingT", bound=Standing)


class RabbitBroker(Broker):
    """A connection to RabbitMQ with an event loop in a thread of its own, rebuilt whenever it breaks.

    With several addresses, of the nodes of one cluster and separated by commas, the next one is tried at once.
    """

    def __init__(self, url: str, *, name: str) -> None:
        #: The next one to try comes first.
        self._urls = deque(_with_defaults(URL(each), name=name) for each in broker_addresses(url))
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        self._connected = threading.Event()
        self._publishing: set[asyncio.Task[None]] = set()
        #: Why the last attempt to connect failed, or the last connection ended.
        self._trouble = ""
        # aiormq reports each attempt as an error; we report each outage once.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        self._thread = LoopThread(name=f"broker-{name}")
        self._thread.start(self, self._keep_connected)

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    @property
    def reactor(self) -> Reactor:
        return self

    def watch(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        self._thread.watch(descriptor, on_ready)

    def unwatch(self, descriptor: int) -> None:
        self._thread.unwatch(descriptor)

    def send(
        self,
        message: Message,
        *,
        on_sent: Callable[[], None],
        on_settled: Callable[[TransientError | None], None],
    ) -> None:
        _check_sizes([message])
        parcel = Parcel([message])
        parcel.on_sent = on_sent
        parcel.on_settled = lambda outcomes: on_settled(outcomes[0])
        self._begin([parcel], _SEND_S)

    def wait_connected(self, *, timeout_s: float) -> bool:
        return self._connected.wait(timeout_s)

    def declare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> None:
        self._thread.call(self._declare(exchanges, queues), timeout_s=_CALLS_S)

    def server_info(self, *, timeout_s: float) -> ServerInfo:
        link = self._link if self.wait_connected(timeout_s=timeout_s) else None
        if link is None:
            raise BrokerUnavailableError(self._trouble or "the broker did not answer in time")
        return link.info()

    def compare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> list[Comparison]:
        return self._thread.call(self._compare(exchanges, queues), timeout_s=_CALLS_S)

    def delete(self, queues: Sequence[str]) -> None:
        self._thread.call(self._delete(queues), timeout_s=_CALLS_S)

    def publish(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float = _SEND_S,
        on_sent: Callable[[], None] | None = None,
    ) -> list[TransientError | None]:
        _check_sizes(messages)
        until = time.monotonic() + timeout_s
        parcels = [Parcel(chunk) for chunk in chunks(messages)]
        if parcels:
            # They are written in this order, and the last one only after all others were.
            parcels[-1].on_sent = on_sent
        if parcels and not self._thread.post(self._begin, parcels, timeout_s):
            return [BrokerUnavailableError("the connection to the broker was closed")] * len(messages)
        return [outcome for parcel in parcels for outcome in parcel.wait(until - time.monotonic())]

    def subscribe(self, queue: str, *, prefetch: int) -> Subscription:
        return self._standing(QueueSubscription(self, queue, prefetch=prefetch))

    def listen(self, exchange: str, *, binding_keys: Sequence[str]) -> Subscription:
        return self._standing(Listener(self, exchange, binding_keys))

    def intake(self, queues: Sequence[str]) -> Intake:
        one = len(queues) == 1
        return self._standing(SingleIntake(self, queues[0]) if one else RotatingIntake(self, queues))

    def close(self) -> None:
        # The connection was started first and is ended last, so that the consumers can say goodbye on it.
        self._thread.stop(timeout_s=_CALL_S)
        self._connected.clear()

    def post(self, callback: Callable[..., None], *arguments: object) -> None:
        self._thread.post(callback, *arguments)

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._thread.call(_through(coroutine), timeout_s=_CALLS_S)

    def dismiss(self, standing: Standing) -> None:
        self._thread.cancel(standing, timeout_s=_CALL_S)

    def _standing(self, standing: _StandingT) -> _StandingT:
        self._thread.start(standing, partial(self._serve, standing))
        return standing

    async def _keep_connected(self) -> None:
        pauses, failed, reported = backoff(*_BACKOFF_S), 0, set[str]()
        while True:
            failed += 1
            url = self._urls[0]
            self._urls.rotate(-1)
            address = {"address": f"{url.host}:{url.port}"}
            try:
                async with _translated(), asyncio.timeout(_CALL_S):
                    link = await _Link.open(url)
                logger.info("broker.connected", extra=address)
                pauses, failed, reported = backoff(*_BACKOFF_S), 0, set()
                await self._keep(link)
            except BrokerUnavailableError as error:
                self._trouble = str(error)
                if self._trouble not in reported:
                    reported.add(self._trouble)
                    logger.warning("broker.unreachable", extra={"reason": self._trouble, **address})
            except Exception:
                logger.exception("broker.failed")
            # At once to the next node, but not round and round.
            if failed % len(self._urls) == 0:
                await asyncio.sleep(next(pauses))

    async def _keep(self, link: "_Link") -> None:
        self._link = link
        self._linked.set()
        self._connected.set()
        try:
            self._trouble = reason = await link.broken()
            logger.warning("broker.lost", extra={"reason": reason})
        finally:
            self._linked.clear()
            self._connected.clear()
            await link.close()

    async def _serve(self, standing: Standing) -> None:
        pauses = backoff(*_BACKOFF_S)
        while True:
            link = await self._await_link()
            try:
                async with _translated():
                    await standing.serve(link)
                pauses = backoff(*_BACKOFF_S)
            except BrokerUnavailableError as error:
                logger.info("broker.consumer_lost", extra={"consumer": str(standing), "reason": str(error)})
            except Exception:
                logger.exception("broker.consumer_failed", extra={"consumer": str(standing)})
            await asyncio.sleep(next(pauses))

    async def _await_link(self) -> "_Link":
        await self._linked.wait()
        assert self._link is not None
        return self._link

    async def _declare(self, exchanges: Sequence[ExchangeSpec], queues: Sequence[QueueSpec]) -> None:
        async with _translated():
            async with asyncio.timeout(_CALL_S):
                link = await self._await_link()
            channel = await link.channel()
            try:
                for exchange in exchanges:
                    await _declare_exchange(channel, exchange)
                for queue in queues:
                    await _declare_queue(channel, queue)
            finally:
                await _Wire(channel, link).close()

    async def _delete(self, queues: Sequence[str]) -> None:
        async with _translated():
            async with asyncio.timeout(_CALL_S):
                link = await self._await_link()
            channel = await link.channel()
            try:
                for queue in queues:
                    with _refusals(f"deleting queue {queue!r}"):
                        await _answered(channel.queue_delete(queue))
            finally:
                await _Wire(channel, link).close()

    async def _compare(self, exchanges: Sequence[ExchangeSpec], queues: Sequence[QueueSpec]) -> list[Comparison]:
        async with _translated():
            async with asyncio.timeout(_CALL_S):
                link = await self._await_link()
            calls = [(spec.name, partial(_compare_exchange, spec=spec)) for spec in exchanges]
            calls += [(spec.name, partial(_compare_queue, spec=spec)) for spec in queues]
            return [await link.compare(name, call) for name, call in calls]

    def _begin(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        if len(parcels) == 1 and self._link is not None and self._link.publish_now(parcels[0]):
            return
        publishing = asyncio.get_running_loop().create_task(self._publish(parcels, timeout_s))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)

    async def _publish(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        unwritten = deque(parcels)
        failure = BrokerUnavailableError("the connection to the broker was closed")
        try:
            async with _translated(), asyncio.timeout(timeout_s):
                link = await self._await_link()
                while unwritten:
                    await link.publish(unwritten[0])
                    unwritten.popleft()
        except BrokerUnavailableError as error:
            failure = error
        finally:
            for parcel in unwritten:
                parcel.refuse(failure)


async def _declare_exchange(channel: Channel, spec: ExchangeSpec) -> None:
    with _refusals(f"exchange {spec.name!r}"):
        await _answered(channel.exchange_declare(spec.name, exchange_type=spec.kind, durable=True))


async def _declare_queue(channel: Channel, spec: QueueSpec) -> None:
    with _refusals(f"queue {spec.name!r}"):
        try:
            await _answered(channel.queue_declare(spec.name, durable=True, arguments=dict(spec.arguments)))
        except ChannelNotFoundEntity as error:
            # A classic queue lives on one node of a cluster. While that is away, it can be neither used nor made anew.
            raise BrokerUnavailableError(str(error)) from error
        for exchange, key in spec.bindings:
            await _answered(channel.queue_bind(spec.name, exchange, key))


# Passively first, which creates nothing; but only declaring for good compares kind and arguments.
async def _compare_exchange(channel: Channel, *, spec: ExchangeSpec) -> tuple[int, int]:
    await _answered(channel.exchange_declare(spec.name, passive=True))
    await _answered(channel.exchange_declare(spec.name, exchange_type=spec.kind, durable=True))
    return 0, 0


async def _compare_queue(channel: Channel, *, spec: QueueSpec) -> tuple[int, int]:
    found = await _answered(channel.queue_declare(spec.name, passive=True))
    await _answered(channel.queue_declare(spec.name, durable=True, arguments=dict(spec.arguments)))
    return found.message_count or 0, found.consumer_count or 0


def _presence(error: AMQPError) -> Presence:
    if isinstance(error, ChannelNotFoundEntity):
        # RabbitMQ says 404 of both, and only in words which: "no queue …", or "home node … is down or inaccessible".
        return Presence.MISSING if " - no " in str(error) else Presence.AWAY
    return Presence.FORBIDDEN if isinstance(error, ChannelAccessRefused) else Presence.DIFFERENT


@contextmanager
def _refusals(subject: str) -> Iterator[None]:
    """Turn what trying again can't change into a `ConfigurationError`; RabbitMQ's own text names the argument."""
    try:
        yield
    except (ChannelPreconditionFailed, ChannelAccessRefused, ChannelNotFoundEntity) as error:
        raise ConfigurationError(f"the broker refuses {subject}: {error}") from error


class _Link:
    def __init__(self, connection: "_Connection", transport: "_Transport") -> None:
        self._connection = connection
        self._transport = transport
        self._presence: dict[str, asyncio.Task[None]] = {}
        self._publishing: dict[str, Lane] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._is_ended = False
        self.write = transport.write
        self.cut = transport.cut

    @classmethod
    async def open(cls, url: URL) -> "_Link":
        transport = _Transport()
        connection = _Connection(url, transport_factory=transport)
        try:
            await connection.connect()
        except BaseException:
            transport.cut()
            raise
        return cls(connection, transport)

    def info(self) -> ServerInfo:
        told = self._connection.server_properties
        return ServerInfo(
            product=str(told.get("product", "")),
            version=str(told.get("version", "")),
            cluster=str(told.get("cluster_name", "")),
        )

    async def compare(self, name: str, call: Callable[[Channel], Awaitable[tuple[int, int]]]) -> Comparison:
        # A channel of its own: every answer but the good one closes it.
        channel = await self.channel()
        try:
            messages, consumers = await call(channel)
        except (ChannelNotFoundEntity, ChannelPreconditionFailed, ChannelAccessRefused) as error:
            return Comparison(name=name, presence=_presence(error), reason=str(error))
        finally:
            await _Wire(channel, self).close()
        return Comparison(name=name, presence=Presence.SAME, messages=messages, consumers=consumers)

    async def broken(self) -> str:
        """Return why, once the connection is no longer usable."""
        closing = self._connection.closing
        try:
            async with _translated():
                channel = await self.channel()
                while not closing.done():
                    await asyncio.wait([closing], timeout=_ECHO_EVERY_S)
                    if not closing.done():
                        await self._echo(channel)
                await closing
        except BrokerUnavailableError as error:
            return str(error)
        return "the connection was closed"

    async def _echo(self, channel: Channel) -> None:
        try:
            await _answered(self._connection.ready(), within_s=_ECHO_S)
        except TimeoutError:
            # RabbitMQ under a memory or disk alarm stops reading but keeps its heartbeats up; cutting the connection
            # would only bring back what is being worked on.
            return
        await _answered(channel.basic_qos(prefetch_count=1), within_s=_ECHO_S)

    async def close(self) -> None:
        """End the connection, politely if the broker still answers."""
        self._is_ended = True
        for task in (*self._presence.values(), *self._retiring):
            task.cancel()
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                # Closing overtakes what still waits to be written, acks among it.
                await self._transport.drained()
                await self._connection.close(ConnectionClosed(0, "closed"))
        self._transport.cut()

    async def lane(self, *, prefetch: int = 0, confirms: bool = False) -> Lane:
        channel = await self.channel(confirms=confirms)
        if prefetch:
            await _answered(channel.basic_qos(prefetch_count=prefetch))
        lane = Lane(_Wire(channel, self))
        channel.closing.add_done_callback(lambda _: lane.leave())
        # Replaced by the next channel of this number: until then a late frame is the old one's.
        self._transport.sieve.takers[channel.number] = lane
        return lane

    async def channel(self, *, confirms: bool = False) -> Channel:
        channel = await _answered(
            self._connection.channel(publisher_confirms=confirms, on_return_raises=True, frame_buffer_size=0)
        )
        assert isinstance(channel, Channel)
        return channel

    def publish_now(self, parcel: Parcel) -> bool:
        """Write messages of one exchange if nothing has to be waited for; False if nothing was done."""
        lane = self._publishing.get(parcel.messages[0].exchange)
        if lane is None or lane.gone.done() or lane.is_refusing or not lane.can_publish(parcel.messages):
            return False
        lane.publish(parcel)
        return True

    async def publish(self, parcel: Parcel) -> None:
        """Write messages of one exchange, once no other one with their ids is in flight."""
        # A channel per exchange: one that doesn't exist closes the channel with all that is in flight on it.
        exchange = parcel.messages[0].exchange
        async with self._opening:
            lane = self._publishing.get(exchange)
            if lane is not None and lane.is_refusing:
                self._retire(lane)
            if lane is None or lane.is_refusing or lane.gone.done():
                lane = self._publishing[exchange] = await self.lane(confirms=True)
        await lane.until_publishable(parcel.messages)
        lane.publish(parcel)
        await self._transport.drained()

    def _retire(self, lane: Lane) -> None:
        async def close() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CALL_S):
                    await lane.until_confirmed()
            await lane.close()

        retiring = asyncio.create_task(close())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    def presence(self, queue: str) -> "asyncio.Task[None]":
        if queue not in self._presence:
            self._presence[queue] = asyncio.create_task(self._await_queue(queue))
        return self._presence[queue]

    def forget(self, queue: str) -> None:
        if (probe := self._presence.get(queue)) and probe.done():
            del self._presence[queue]

    async def _await_queue(self, queue: str) -> None:
        # A consumer may ask an ended link, just before it hears of the next one.
        for pause in takewhile(lambda _: not self._is_ended, backoff(*_PROBE_S)):
            with suppress(TransientError):
                async with _translated():
                    # A channel of its own: a 404 closes it.
                    channel = await self.channel()
                    try:
                        await _answered(channel.queue_declare(queue, passive=True))
                    finally:
                        await _Wire(channel, self).close()
                    return
            await asyncio.sleep(pause)


class _Wire:
    """The client's channel as a lane sees it."""

    def __init__(self, channel: Channel, link: "_Link") -> None:
        self.channel = channel
        self.number = channel.number
        self.largest = channel.max_content_size
        self.write = link.write
        self._cut = link.cut
        self._is_closing = False

    @property
    def is_open(self) -> bool:
        # aiormq forgets a closed channel before it answers.
        return not self._is_closing and self.channel.connection.channels.get(self.number) is self.channel

    def headers_of(self, properties: bytes) -> Mapping[str, Any]:
        header = ContentHeader()
        header.unmarshal(properties)
        return header.properties.headers or {}

    async def bound_queue(self, exchange: str, keys: Sequence[str]) -> str:
        declared = await _answered(self.channel.queue_declare("", exclusive=True, auto_delete=True))
        queue = declared.queue or ""
        for key in keys:
            await _answered(self.channel.queue_bind(queue, exchange, key))
        return queue

    async def close(self) -> None:
        self._is_closing = True
        try:
            await _answered(self.channel.close(), within_s=_CLOSE_S)
        except TimeoutError:
            # What hangs in the broker may still be given deliveries, which nobody would see: end it with all others.
            logger.warning("broker.channel_stuck")
            self._cut()
        except Exception:  # noqa: BLE001, S110  # It is closed already, by whomever.
            pass


class _Connection(aiormq.Connection):
    #: Unbounded: the drain after each chunk bounds what is written, and a full queue swallows `channel.close-ok`.
    FRAME_BUFFER_SIZE = 0


class _Writer(asyncio.StreamWriter):
    """What the client writes comes after what was to be written before, as RabbitMQ cuts a connection otherwise."""

    #: Writes what waits.
    before: Callable[[], None]

    def write(self, data: Any) -> None:
        self.before()
        super().write(data)


class _Transport(TransportFactory):
    """Opens the socket with a sieve at its reading end, and keeps hold of it.

    A connection that is dead at the other end can't be closed, only cut.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sieve = Sieve(loop)
        self._loop = loop
        self._writer: asyncio.StreamWriter | None = None
        self._unwritten: list[bytes] = []

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = await options["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        transport, protocol = await self._loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(self.sieve, loop=self._loop),
            url.host or "",
            url.port or 0,
            ssl=context,
        )
        # What one read may bring: a buffer of asyncio's own size is got from the system, and given back, each time.
        transport.max_size = _READ  # type: ignore[attr-defined]
        self._writer = _Writer(transport, protocol, self.sieve, self._loop)
        self._writer.before = self.flush
        return self.sieve, self._writer

    def write(self, data: bytes) -> None:
        """Have this written with all else that comes before the loop waits again: one packet, not one for each."""
        if not self._unwritten:
            self._loop.call_soon(self._loop.call_soon, self.flush)
        self._unwritten.append(data)

    def flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if unwritten and self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(unwritten))

    async def drained(self) -> None:
        self.flush()
        if self._writer is not None:
            await self._writer.drain()

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


def _check_sizes(messages: Sequence[Message]) -> None:
    for message in messages:
        if len(message.body) > LARGEST_MESSAGE:
            raise ProtocolError(f"a message for {message.routing_key!r} has {len(message.body)} bytes, too many")


def _with_defaults(url: URL, *, name: str) -> URL:
    return url.update_query({"heartbeat": str(_HEARTBEAT_S), "name": name} | dict(url.query))


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Turn every way in which aiormq says that a connection or channel is gone into `BrokerUnavailableError`."""
    try:
        yield
    except asyncio.CancelledError as error:
        # aiormq rejects what waits on a dead connection with this error too; only a task that somebody cancels says so.
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        raise BrokerUnavailableError("the connection was closed") from error
    except (AMQPError, OSError, TimeoutError, RuntimeError) as error:
        raise BrokerUnavailableError(str(error) or type(error).__name__) from error


async def _through(coroutine: Coroutine[Any, Any, None]) -> None:
    async with _translated():
        await coroutine


async def _answered(call: Awaitable[_T], *, within_s: float = _CALL_S) -> _T:
    # Not aiormq's own timeouts: `asyncio.wait_for`, of which they are made, can swallow a cancellation in Python 3.11.
    async with asyncio.timeout(within_s):
        return await call
