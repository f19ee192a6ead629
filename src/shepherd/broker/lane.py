"""One AMQP channel, with what it takes to use it without a task, a future or a write of its own for each message.

On the loop's thread only.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from shepherd.broker import frames
from shepherd.broker.channel import Wire
from shepherd.broker.consumers import Received
from shepherd.broker.frames import Method
from shepherd.broker.parcel import Parcel
from shepherd.broker.port import Message
from shepherd.errors import BrokerUnavailableError, QueueMissingError, TransientError

#: One request to the broker.
_CALL_S: Final = 10.0
_MULTIPLE: Final = 1
_REDELIVERED: Final = 1


@dataclass(slots=True, eq=False, kw_only=True)
class _Content:
    """What a method brings with it, while it arrives."""

    method: Method
    payload: bytes
    header: bytes = b""
    missing: int = 0
    parts: list[bytes] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Written:
    """A published message that isn't confirmed yet."""

    parcel: Parcel
    index: int
    message_id: str
    is_returned: bool = False


Arrived = Callable[[Sequence[Received]], None]


class Lane:
    """A channel, from its opening to its end."""

    def __init__(self, wire: Wire) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._content: _Content | None = None
        #: The queue and the callback of each consumer, by its tag.
        self._consumers: dict[str, tuple[str, Arrived]] = {}
        #: What has arrived and was not yet handed on, by the consumer's tag.
        self._arrivals: dict[str, list[Received]] = {}
        #: What waits for the broker's answers, which come in the order of the requests; with the queue of a `get`.
        self._answers: deque[tuple[asyncio.Future[Received | None], str]] = deque()
        #: All deliveries up to this tag are settled, and of the later ones those in `_settled`.
        self._settled_to = 0
        self._settled: set[int] = set()
        self._prefix = uuid.uuid4().hex
        self._published = 0
        self._written: dict[int, _Written] = {}
        self._in_flight: dict[str, int] = {}
        self._has_confirmed = asyncio.Event()
        #: A message was refused. On a channel whose first one came while its quorum queue had no leader, RabbitMQ 3.10
        #: refuses all that follow.
        self.is_refusing = False

    def leave(self) -> None:
        """Note that the channel is of no use any more."""
        if not self.gone.done():
            self.gone.set_result(None)
        lost = BrokerUnavailableError("the channel was closed")
        while self._answers:
            answer, _ = self._answers.popleft()
            if not answer.done():
                answer.set_exception(lost)
        written, self._written = self._written, {}
        for each in written.values():
            each.parcel.settle(each.index, lost)
        self._in_flight.clear()
        self._has_confirmed.set()

    def ack(self, tags: Sequence[int]) -> None:
        # One frame for all where nothing unsettled lies below: a batch in the order of its arrival.
        is_multiple = len(tags) > 1 and list(tags) == list(range(self._settled_to + 1, tags[-1] + 1))
        self._note(tags)
        for tag in tags[-1:] if is_multiple else tags:
            self._send(frames.ack(self._wire.number, tag, is_multiple=is_multiple))

    def requeue(self, tags: Sequence[int]) -> None:
        self._note(tags)
        for tag in tags:
            self._send(frames.requeue(self._wire.number, tag))

    def reject(self, tags: Sequence[int]) -> None:
        self._note(tags)
        for tag in tags:
            self._send(frames.reject(self._wire.number, tag))

    def _note(self, tags: Sequence[int]) -> None:
        self._settled.update(tags)
        while self._settled_to + 1 in self._settled:
            self._settled_to += 1
            self._settled.remove(self._settled_to)

    def _send(self, data: bytes) -> bool:
        if self.gone.done() or not self._wire.is_open:
            return False
        self._wire.write(data)
        return True

    async def consume(self, queue: str, arrived: Arrived) -> None:
        tag = f"{self._prefix}.{len(self._consumers)}"
        self._consumers[tag] = (queue, arrived)
        await self._answer(frames.consume(self._wire.number, queue, consumer_tag=tag))

    async def listen(self, exchange: str, keys: Sequence[str], arrived: Arrived) -> None:
        await self.consume(await self._wire.bound_queue(exchange, keys), arrived)

    async def cancel_consumers(self) -> None:
        """Return when the broker has confirmed that nothing more will come."""
        if self._consumers and not self.gone.done():
            answers = [self._ask(frames.cancel(self._wire.number, tag)) for tag in self._consumers]
            done, _ = await asyncio.wait(answers, timeout=_CALL_S)
            # Of all: the loop complains of an exception that nobody looked at.
            failures = [answer.exception() for answer in done]
            if len(done) < len(answers) or any(failures):
                self.leave()
            self._consumers.clear()

    async def get(self, queue: str) -> Received | None:
        return await self._answer(frames.get(self._wire.number, queue), queue)

    async def close(self) -> None:
        self.leave()
        await self._wire.close()

    async def _answer(self, request: bytes, queue: str = "") -> Received | None:
        async with asyncio.timeout(_CALL_S):
            return await self._ask(request, queue)

    def _ask(self, request: bytes, queue: str = "") -> "asyncio.Future[Received | None]":
        answer: asyncio.Future[Received | None] = asyncio.get_running_loop().create_future()
        if self._send(request):
            self._answers.append((answer, queue))
        else:
            answer.set_exception(BrokerUnavailableError("the channel was closed"))
        return answer

    def can_publish(self, messages: Sequence[Message]) -> bool:
        """Return False while a message with one of their ids isn't confirmed: a return is told by its id alone."""
        return not any(message.message_id in self._in_flight for message in messages)

    async def until_publishable(self, messages: Sequence[Message]) -> None:
        while not self.can_publish(messages):
            self._has_confirmed.clear()
            await self._has_confirmed.wait()

    async def until_confirmed(self) -> None:
        while self._written:
            self._has_confirmed.clear()
            await self._has_confirmed.wait()

    def publish(self, parcel: Parcel) -> None:
        """Write a parcel, whose messages are settled by their confirms, or by the channel's end."""
        if self.gone.done() or not self._wire.is_open:
            parcel.refuse(BrokerUnavailableError("the channel was closed"))
            return
        written: list[bytes] = []
        for index, message in enumerate(parcel.messages):
            self._published += 1
            name = message.message_id or f"{self._prefix}.{self._published}"
            self._written[self._published] = _Written(parcel, index, name)
            self._in_flight[name] = self._published
            written += frames.publish(
                self._wire.number,
                exchange=message.exchange,
                routing_key=message.routing_key,
                is_mandatory=message.is_mandatory,
                properties=frames.json_properties(
                    message_id=name, kind=message.type, is_persistent=message.is_persistent
                ),
                body=message.body,
                largest=self._wire.largest,
            )
        self._wire.write(b"".join(written))
        if parcel.on_sent is not None:
            parcel.on_sent()

    def method(self, method: Method, payload: bytes) -> None:
        if method in frames.WITH_CONTENT:
            self._content = _Content(method=method, payload=payload)
        elif method is Method.ACK or method is Method.NACK:
            tag, bits = frames.tagged(payload)
            self._confirmed(tag, is_multiple=bool(bits & _MULTIPLE), is_taken=method is Method.ACK)
        elif method is Method.CANCEL:
            # As when the queue was deleted: whoever consumes opens a new channel.
            self.leave()
        else:
            self._answered(None)

    def header(self, payload: bytes) -> None:
        if self._content is not None:
            self._content.header = payload
            self._content.missing = frames.content_size(payload)
            self._end_if_whole(self._content)

    def body(self, payload: bytes) -> None:
        if self._content is not None:
            self._content.parts.append(payload)
            self._content.missing -= len(payload)
            self._end_if_whole(self._content)

    def pause(self) -> None:
        if self._arrivals:
            arrivals, self._arrivals = self._arrivals, {}
            for tag, deliveries in arrivals.items():
                self._consumers[tag][1](deliveries)

    def _end_if_whole(self, content: _Content) -> None:
        if content.missing > 0:
            return
        self._content = None
        if self.gone.done():
            return
        if content.method is Method.DELIVER:
            consumer_tag, tag, is_redelivered = frames.delivered(content.payload)
            if consumer_tag in self._consumers:
                queue = self._consumers[consumer_tag][0]
                received = self._received(content, tag, queue, is_redelivered=is_redelivered)
                self._arrivals.setdefault(consumer_tag, []).append(received)
            else:
                # On its way while its consumer was cancelled: nobody else would ever settle it.
                self.requeue([tag])
        elif content.method is Method.GET_OK:
            tag, bits = frames.tagged(content.payload)
            queue = self._answers[0][1] if self._answers else ""
            self._answered(self._received(content, tag, queue, is_redelivered=bool(bits & _REDELIVERED)))
        else:
            self._returned(frames.message_id(content.header))

    def _received(self, content: _Content, tag: int, queue: str, *, is_redelivered: bool) -> Received:
        return Received(
            lane=self,
            tag=tag,
            queue=queue,
            body=content.parts[0] if len(content.parts) == 1 else b"".join(content.parts),
            message_id=frames.message_id(content.header),
            is_redelivered=is_redelivered,
            properties=content.header,
            read_headers=self._wire.headers_of,
        )

    def _answered(self, received: Received | None) -> None:
        if self._answers:
            answer, _ = self._answers.popleft()
            if not answer.done():
                answer.set_result(received)

    def _returned(self, name: str) -> None:
        written = self._written.get(self._in_flight.get(name, 0))
        if written is not None:
            written.is_returned = True

    def _confirmed(self, tag: int, *, is_multiple: bool, is_taken: bool) -> None:
        tags = [each for each in self._written if each <= tag] if is_multiple else [tag]
        for each in tags:
            if (written := self._written.pop(each, None)) is not None:
                self._in_flight.pop(written.message_id, None)
                self.is_refusing = self.is_refusing or not is_taken
                written.parcel.settle(written.index, _failure(written, is_taken=is_taken))
        self._has_confirmed.set()


def _failure(written: _Written, *, is_taken: bool) -> TransientError | None:
    if not is_taken:
        return BrokerUnavailableError("the broker did not confirm: it refuses the message")
    if written.is_returned:
        message = written.parcel.messages[written.index]
        return QueueMissingError(f"no queue takes {message.routing_key!r} of exchange {message.exchange!r}")
    return None
