"""The few frames of AMQP 0-9-1 that every message costs, written and read by hand.

The client's own codec and its tasks and queues between socket and caller take five times as long as all else that is
done for a message here. What is rare (opening, declaring, closing, heartbeats) is left to the client. Section numbers
are those of the specification, AMQP 0-9-1.
"""

import asyncio
import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Final, Protocol, SupportsIndex

#: Type, channel, size (4.2.3).
_HEAD: Final = struct.Struct(">BHI")
_END: Final = b"\xce"
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
#: What a frame has beside its payload.
_AROUND: Final = 8
#: A heartbeat frame, whole (4.2.7).
_BEAT: Final = _HEAD.pack(_HEARTBEAT, 0, 0) + _END
#: The client takes a connection for dead on which it has seen no frame for 33 s.
_SIGN_OF_LIFE_S: Final = 2.0

_LONG: Final = struct.Struct(">Q")
_TAGGED: Final = struct.Struct(">HHQB")
_PUBLISH: Final = 40


class Method(IntEnum):
    """Methods of class basic (1.8.3) that are read here; `NACK` is RabbitMQ's own."""

    CONSUME = 20
    CONSUME_OK = 21
    CANCEL = 30
    CANCEL_OK = 31
    RETURN = 50
    DELIVER = 60
    GET = 70
    GET_OK = 71
    GET_EMPTY = 72
    ACK = 80
    REJECT = 90
    NACK = 120


#: Those that a content header and the body follow.
WITH_CONTENT: Final = frozenset({Method.RETURN, Method.DELIVER, Method.GET_OK})
_READ: Final[Mapping[int, Method]] = {
    method.value: method for method in Method if method not in {Method.CONSUME, Method.GET, Method.REJECT}
}


class Taker(Protocol):
    """One channel, as the sieve sees it."""

    def method(self, method: Method, payload: bytes) -> None: ...
    def header(self, payload: bytes) -> None: ...
    def body(self, payload: bytes) -> None: ...
    def pause(self) -> None:
        """Nothing more has come for now."""


class Sieve(asyncio.StreamReader):
    """The reading end of a connection: hands what belongs to messages to the channels, and all else to the client."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.takers: dict[int, Taker] = {}
        self._clock = loop.time
        self._rest = b""
        self._is_raw = False
        self._told_at = 0.0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        buffer = self._rest + bytes(data)
        # What isn't a frame is for the client to complain of.
        self._is_raw = self._is_raw or not _is_frame(buffer)
        if self._is_raw:
            super().feed_data(buffer)
            return
        touched: dict[int, Taker] = {}
        at, end, has_taken = 0, len(buffer), False
        while end - at >= _AROUND:
            kind, number, size = _HEAD.unpack_from(buffer, at)
            after = at + size + _AROUND
            if after > end:
                break
            taker = self.takers.get(number)
            if taker is not None and _is_taken(taker, kind, buffer[at + 7 : after - 1]):
                touched[number] = taker
                has_taken = True
            else:
                super().feed_data(buffer[at:after])
            at = after
        self._rest = buffer[at:]
        for taker in touched.values():
            taker.pause()
        if has_taken:
            self._show_life()

    def _show_life(self) -> None:
        now = self._clock()
        if now - self._told_at > _SIGN_OF_LIFE_S:
            self._told_at = now
            super().feed_data(_BEAT)


def _is_frame(buffer: bytes) -> bool:
    return not buffer or buffer[0] in (_METHOD, _HEADER, _BODY, _HEARTBEAT)


def _is_taken(taker: Taker, kind: int, payload: bytes) -> bool:
    if kind == _METHOD:
        method = _READ.get(int.from_bytes(payload[2:4], "big")) if payload[:2] == b"\0\x3c" else None
        if method is None:
            return False
        taker.method(method, payload)
    elif kind == _HEADER:
        taker.header(payload)
    elif kind == _BODY:
        taker.body(payload)
    else:
        return False
    return True


def tagged(payload: bytes) -> tuple[int, int]:
    """Return the delivery tag and the bits after it, of `ack`, `nack` and `get-ok`."""
    _, _, tag, bits = _TAGGED.unpack_from(payload)
    return tag, bits


def delivered(payload: bytes) -> tuple[str, int, bool]:
    """Return a `deliver`'s consumer tag, delivery tag, and whether it is a redelivery."""
    end = 5 + payload[4]
    return payload[5:end].decode(), _LONG.unpack_from(payload, end)[0], bool(payload[end + 8])


def content_size(header: bytes) -> int:
    return int(_LONG.unpack_from(header, 4)[0])


def message_id(header: bytes) -> str:
    """Return the message id in a content header, empty if there is none (4.2.6)."""
    flags, at = int.from_bytes(header[12:14], "big"), 14
    if not flags & 0x0080:
        return ""
    for flag in (0x8000, 0x4000):
        if flags & flag:
            at += 1 + header[at]
    if flags & 0x2000:
        at += 4 + int.from_bytes(header[at : at + 4], "big")
    at += bool(flags & 0x1000) + bool(flags & 0x0800)
    for flag in (0x0400, 0x0200, 0x0100):
        if flags & flag:
            at += 1 + header[at]
    return header[at + 1 : at + 1 + header[at]].decode("utf-8", "replace")


def publish(
    channel: int, *, exchange: str, routing_key: str, is_mandatory: bool, properties: bytes, body: bytes, largest: int
) -> Iterator[bytes]:
    """Yield the frames of one message; `largest` is what the broker takes in one body frame."""
    arguments = b"\0\0%b%b%b" % (_short(exchange), _short(routing_key), b"\1" if is_mandatory else b"\0")
    yield _method(channel, _PUBLISH, arguments)
    yield _frame(_HEADER, channel, _content(len(body), properties))
    for start in range(0, len(body), largest):
        yield _frame(_BODY, channel, body[start : start + largest])


def json_properties(*, message_id: str, kind: str, is_persistent: bool) -> bytes:
    """Return the flags and the properties of a message whose body is JSON."""
    flags = 0x8000 | 0x1000 | 0x0080 | (0x0020 if kind else 0)
    persistent = b"\2" if is_persistent else b"\1"
    return b"%b%b%b%b%b" % (
        flags.to_bytes(2, "big"),
        _short("application/json"),
        persistent,
        _short(message_id),
        _short(kind) if kind else b"",
    )


def ack(channel: int, tag: int, *, is_multiple: bool) -> bytes:
    return _method(channel, Method.ACK, _LONG.pack(tag) + (b"\1" if is_multiple else b"\0"))


def requeue(channel: int, tag: int) -> bytes:
    """Give back what nobody has looked at. From RabbitMQ 4.3 on this isn't counted toward the delivery limit."""
    return _method(channel, Method.NACK, _LONG.pack(tag) + b"\2")


def reject(channel: int, tag: int) -> bytes:
    """Give back what nothing came of. Every RabbitMQ counts this toward the delivery limit."""
    return _method(channel, Method.REJECT, _LONG.pack(tag) + b"\1")


def get(channel: int, queue: str) -> bytes:
    return _method(channel, Method.GET, b"\0\0%b\0" % _short(queue))


def consume(channel: int, queue: str, *, consumer_tag: str) -> bytes:
    return _method(channel, Method.CONSUME, b"\0\0%b%b\0\0\0\0\0" % (_short(queue), _short(consumer_tag)))


def cancel(channel: int, consumer_tag: str) -> bytes:
    return _method(channel, Method.CANCEL, b"%b\0" % _short(consumer_tag))


def _content(size: int, properties: bytes) -> bytes:
    return b"\0\x3c\0\0%b%b" % (_LONG.pack(size), properties)


def _method(channel: int, method: int, arguments: bytes) -> bytes:
    return _frame(_METHOD, channel, b"\0\x3c\0%c%b" % (method, arguments))


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (_HEAD.pack(kind, channel, len(payload)), payload)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return b"%c%b" % (len(encoded), encoded)
