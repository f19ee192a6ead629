"""RabbitMQ behind the `Broker` port.

Longer than a module should be, since this is the only one that may know AMQP. `RabbitBroker` is the port, for any
thread. Below it, on the loop's thread only, `_Link` is one connection, never repaired but replaced, and `_Lane` one
channel of it; what consumes over them is in `consumers.py`.

Everything here speaks to aiormq, the protocol layer of aio-pika: see docs/decisions/0003-aio-pika-behind-a-port.md.
"""

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import takewhile
from typing import Any, Final, TypeVar

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage, FrameType
from aiormq.channel import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    PublishError,
)
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from yarl import URL

from shepherd.broker.consumers import Listener, QueueSubscription, Received, RotatingIntake, SingleIntake, Standing
from shepherd.broker.loop_thread import LoopThread
from shepherd.broker.pacing import backoff, chunks
from shepherd.broker.port import Broker, ExchangeSpec, Intake, Message, QueueSpec, Subscription
from shepherd.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    ProtocolError,
    QueueMissingError,
    TransientError,
)

logger = logging.getLogger(__name__)

#: RabbitMQ 4 refuses larger ones by default (`max_message_size`); 3.10 would take 128 MiB.
LARGEST_MESSAGE: Final = 16 * 1024 * 1024
_HEARTBEAT_S: Final = 10
#: Between two echoes, and the wait for one: a half-open connection is noticed after both at the latest.
_ECHO_EVERY_S: Final = 5.0
_ECHO_S: Final = 5.0
#: One request to the broker.
_CALL_S: Final = 10.0
#: What consists of many requests.
_CALLS_S: Final = 60.0
#: What a farewell may take before the socket is cut.
_CLOSE_S: Final = 2.0
_BACKOFF_S: Final = (0.2, 5.0)
_PROBE_S: Final = (0.1, 1.0)

_Confirm = asyncio.Future[Any]
_T = TypeVar("_T")
_StandingT = TypeVar("_StandingT", bound=Standing)


class RabbitBroker(Broker):
    """A connection to RabbitMQ with an event loop in a thread of its own, rebuilt whenever it breaks."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = _with_defaults(URL(url), name=name)
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        self._connected = threading.Event()
        # aiormq reports each attempt as an error; we report each outage once.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        self._thread = LoopThread(name=f"broker-{name}")
        self._thread.start(self, self._keep_connected)

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    def wait_connected(self, *, timeout_s: float) -> bool:
        return self._connected.wait(timeout_s)

    def declare(self, *, exchanges: Sequence[ExchangeSpec] = (), queues: Sequence[QueueSpec] = ()) -> None:
        self._thread.call(self._declare(exchanges, queues), timeout_s=_CALLS_S)

    def publish(self, messages: Sequence[Message], *, timeout_s: float = 10.0) -> list[TransientError | None]:
        for message in messages:
            if len(message.body) > LARGEST_MESSAGE:
                raise ProtocolError(f"a message for {message.routing_key!r} has {len(message.body)} bytes, too many")
        try:
            # The coroutine keeps the time; the second more is for a loop that is busy.
            return self._thread.call(self._publish(messages, timeout_s), timeout_s=timeout_s + 1.0)
        except BrokerUnavailableError as error:
            return [error] * len(messages)

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

    def dismiss(self, standing: Standing) -> None:
        self._thread.cancel(standing, timeout_s=_CALL_S)

    def _standing(self, standing: _StandingT) -> _StandingT:
        self._thread.start(standing, partial(self._serve, standing))
        return standing

    async def _keep_connected(self) -> None:
        pauses, reported = backoff(*_BACKOFF_S), ""
        while True:
            try:
                async with _translated(), asyncio.timeout(_CALL_S):
                    link = await _Link.open(self._url)
                logger.info("broker.connected")
                pauses, reported = backoff(*_BACKOFF_S), ""
                await self._keep(link)
            except BrokerUnavailableError as error:
                if reported != (reported := str(error)):
                    logger.warning("broker.unreachable", extra={"reason": reported})
            except Exception:
                logger.exception("broker.failed")
            await asyncio.sleep(next(pauses))

    async def _keep(self, link: "_Link") -> None:
        self._link = link
        self._linked.set()
        self._connected.set()
        try:
            reason = await link.broken()
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
            lane = await link.lane()
            try:
                for exchange in exchanges:
                    await _declare_exchange(lane.channel, exchange)
                for queue in queues:
                    await _declare_queue(lane.channel, queue)
            finally:
                await lane.close()

    async def _publish(self, messages: Sequence[Message], timeout_s: float) -> list[TransientError | None]:
        confirms: list[_Confirm] = []
        failure: BrokerUnavailableError | None = None
        try:
            async with _translated(), asyncio.timeout(timeout_s):
                link = await self._await_link()
                for chunk in chunks(messages):
                    confirms += await link.publish(chunk)
                if confirms:
                    await asyncio.wait(confirms)
        except BrokerUnavailableError as error:
            failure = error
        outcomes = [_outcome(*pair) for pair in zip(confirms, messages, strict=False)]
        return outcomes + [failure] * (len(messages) - len(confirms))


async def _declare_exchange(channel: Channel, spec: ExchangeSpec) -> None:
    with _refusals(f"exchange {spec.name!r}"):
        await _answered(channel.exchange_declare(spec.name, exchange_type=spec.kind, durable=True))


async def _declare_queue(channel: Channel, spec: QueueSpec) -> None:
    with _refusals(f"queue {spec.name!r}"):
        await _answered(channel.queue_declare(spec.name, durable=True, arguments=dict(spec.arguments)))
        for exchange, key in spec.bindings:
            await _answered(channel.queue_bind(spec.name, exchange, key))


@contextmanager
def _refusals(subject: str) -> Iterator[None]:
    """Turn what trying again can't change into a `ConfigurationError`; RabbitMQ's own text names the argument."""
    try:
        yield
    except (ChannelPreconditionFailed, ChannelAccessRefused, ChannelNotFoundEntity) as error:
        raise ConfigurationError(f"the broker refuses {subject}: {error}") from error


def _outcome(confirm: _Confirm, message: Message) -> TransientError | None:
    if not confirm.done() or confirm.cancelled():
        confirm.cancel()
        return BrokerUnavailableError("the broker did not confirm in time")
    error = confirm.exception()
    if error is None:
        return None
    if isinstance(error, PublishError):
        return QueueMissingError(f"no queue takes {message.routing_key!r} of exchange {message.exchange!r}")
    return BrokerUnavailableError(f"the broker did not confirm: {error!r}")


class _Link:
    def __init__(self, connection: "_Connection", transport: "_Transport") -> None:
        self._connection = connection
        self._transport = transport
        self._presence: dict[str, asyncio.Task[None]] = {}
        self._publishing: dict[str, _Lane] = {}
        self._opening = asyncio.Lock()
        self._is_ended = False

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

    async def broken(self) -> str:
        """Return why, once the connection is no longer usable."""
        closing = self._connection.closing
        try:
            async with _translated():
                lane = await self.lane()
                while not closing.done():
                    await asyncio.wait([closing], timeout=_ECHO_EVERY_S)
                    if not closing.done():
                        await self._echo(lane)
                await closing
        except BrokerUnavailableError as error:
            return str(error)
        return "the connection was closed"

    async def _echo(self, lane: "_Lane") -> None:
        try:
            await _answered(self._connection.ready(), within_s=_ECHO_S)
        except TimeoutError:
            # RabbitMQ under a memory or disk alarm stops reading but keeps its heartbeats up; cutting the connection
            # would only bring back what is being worked on.
            return
        await _answered(lane.channel.basic_qos(prefetch_count=1), within_s=_ECHO_S)

    async def close(self) -> None:
        """End the connection, politely if the broker still answers."""
        self._is_ended = True
        for probe in self._presence.values():
            probe.cancel()
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                await self._flush()
                await self._connection.close(ConnectionClosed(0, "closed"))
        self._transport.cut()

    async def _flush(self) -> None:
        # Closing overtakes what still waits to be written, acks among it.
        written = self._connection.create_future()
        self._connection.write_queue.put_nowait(ChannelFrame(payload=b"", should_close=False, drain_future=written))
        await written

    async def lane(self, *, prefetch: int = 0, confirms: bool = False) -> "_Lane":
        channel = await _answered(
            self._connection.channel(publisher_confirms=confirms, on_return_raises=True, frame_buffer_size=0)
        )
        if prefetch:
            await _answered(channel.basic_qos(prefetch_count=prefetch))
        assert isinstance(channel, Channel)
        return _Lane(channel, self._transport.cut)

    async def publish(self, messages: Sequence[Message]) -> list[_Confirm]:
        """Write messages of one exchange and return what their confirms will resolve."""
        # A channel per exchange: one that doesn't exist closes the channel with all that is in flight on it.
        exchange = messages[0].exchange
        async with self._opening:
            lane = self._publishing.get(exchange)
            if lane is None or lane.gone.done():
                lane = self._publishing[exchange] = await self.lane(confirms=True)
        return await lane.publish(messages)

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
                    lane = await self.lane()
                    try:
                        await _answered(lane.channel.queue_declare(queue, passive=True))
                    finally:
                        await lane.close()
                    return
            await asyncio.sleep(pause)


class _Lane:
    """One channel with what it takes to use it without a task or a wait for each message."""

    def __init__(self, channel: Channel, cut: Callable[[], None]) -> None:
        self.channel = channel
        self._cut = cut
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closing = False
        channel.closing.add_done_callback(self._leave)
        channel.on_consumer_cancel_callbacks.add(self._leave)

    def _leave(self, _cause: object) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def ack(self, tags: Sequence[int]) -> None:
        self._send([commands.Basic.Ack(delivery_tag=tag) for tag in tags])

    def requeue(self, tags: Sequence[int]) -> None:
        self._send([commands.Basic.Nack(delivery_tag=tag, requeue=True) for tag in tags])

    def _send(self, frames: Sequence[FrameType]) -> None:
        # aiormq forgets a closed channel before it answers; RabbitMQ cuts the connection for a frame that comes later.
        if not self._is_closing and self.channel.connection.channels.get(self.channel.number) is self.channel:
            frame = ChannelFrame.marshall(self.channel.number, frames)
            self.channel.connection.write_queue.put_nowait(frame)

    async def consume(self, queue: str, arrived: Callable[[Received], None]) -> None:
        async def receive(message: DeliveredMessage) -> None:
            arrived(self._received(message, queue))

        await _answered(self.channel.basic_consume(queue, receive))

    async def listen(self, exchange: str, keys: Sequence[str], arrived: Callable[[Received], None]) -> None:
        declared = await _answered(self.channel.queue_declare("", exclusive=True, auto_delete=True))
        queue = declared.queue or ""
        for key in keys:
            await _answered(self.channel.queue_bind(queue, exchange, key))
        await self.consume(queue, arrived)

    async def get(self, queue: str) -> Received | None:
        message = await _answered(self.channel.basic_get(queue))
        return self._received(message, queue) if isinstance(message.delivery, commands.Basic.GetOk) else None

    def _received(self, message: DeliveredMessage, queue: str) -> Received:
        properties = message.header.properties
        return Received(
            lane=self,
            tag=message.delivery_tag or 0,
            queue=queue,
            body=message.body,
            message_id=properties.message_id or "",
            headers=properties.headers or {},
            is_redelivered=bool(message.redelivered),
        )

    async def cancel_consumers(self) -> None:
        for tag in list(self.channel.consumers):
            with suppress(AMQPError, TimeoutError):
                await _answered(self.channel.basic_cancel(tag))

    async def publish(self, messages: Sequence[Message]) -> list[_Confirm]:
        """Write these messages and return, once they are written, what their confirms will resolve."""
        channel = self.channel
        while busy := [confirm for confirm in map(self._in_flight, messages) if confirm]:
            await asyncio.wait(busy)
        confirms = []
        frames: list[Any] = []
        written = channel.create_future()
        for message in messages:
            confirms.append(self._expect(message_id := message.message_id or uuid.uuid4().hex))
            frames += _frames(message, message_id, channel.max_content_size)
        channel.write_queue.put_nowait(ChannelFrame.marshall(channel.number, frames, written))
        await written
        return confirms

    def _in_flight(self, message: Message) -> _Confirm | None:
        # A returned message is told from others by its id alone.
        return self.channel.confirmations.get(self.channel.message_id_delivery_tag.get(message.message_id, 0))

    def _expect(self, message_id: str) -> _Confirm:
        channel = self.channel
        channel.delivery_tag += 1
        tag = channel.delivery_tag
        confirm = channel.create_future()
        channel.confirmations[tag] = confirm
        channel.message_id_delivery_tag[message_id] = tag
        confirm.add_done_callback(lambda _: channel.message_id_delivery_tag.pop(message_id, None))
        return confirm

    async def close(self) -> None:
        self._is_closing = True
        self._leave(None)
        try:
            await _answered(self.channel.close(), within_s=_CLOSE_S)
        except TimeoutError:
            # What hangs in the broker may still be given deliveries, which nobody would see: end it with all others.
            logger.warning("broker.channel_stuck")
            self._cut()
        except Exception:  # noqa: BLE001, S110  # It is closed already, by whomever.
            pass


def _frames(message: Message, message_id: str, largest: int) -> list[Any]:
    body = message.body
    properties = commands.Basic.Properties(
        delivery_mode=2 if message.is_persistent else 1,
        message_id=message_id,
        message_type=message.type or None,
        content_type="application/json",
    )
    return [
        commands.Basic.Publish(
            exchange=message.exchange, routing_key=message.routing_key, mandatory=message.is_mandatory
        ),
        ContentHeader(properties=properties, body_size=len(body)),
        *(ContentBody(body[start : start + largest]) for start in range(0, len(body), largest)),
    ]


class _Connection(aiormq.Connection):
    #: Unbounded: the drain after each chunk bounds what is written, and a full queue swallows `channel.close-ok`.
    FRAME_BUFFER_SIZE = 0


class _Transport(TransportFactory):
    """Keeps hold of the socket: a connection that is dead at the other end can't be closed, only cut."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **options)
        return reader, self._writer

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


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


async def _answered(call: Awaitable[_T], *, within_s: float = _CALL_S) -> _T:
    # Not aiormq's own timeouts: `asyncio.wait_for`, of which they are made, can swallow a cancellation in Python 3.11.
    async with asyncio.timeout(within_s):
        return await call
