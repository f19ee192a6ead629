"""The frames written by hand are those that the client's own codec writes and reads."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from shepherd.broker import frames
from shepherd.broker.frames import Method, Sieve

DELIVER = commands.Basic.Deliver(
    consumer_tag="c.1", delivery_tag=7, redelivered=True, exchange="", routing_key="shepherd.task.x"
)
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"


class Channel:
    """Notes what the sieve hands to a channel."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def method(self, method: Method, payload: bytes) -> None:
        self.taken.append((method, payload))

    def header(self, payload: bytes) -> None:
        self.taken.append(("header", payload))

    def body(self, payload: bytes) -> None:
        self.taken.append(("body", payload))

    def pause(self) -> None:
        self.taken.append("pause")


@pytest.fixture
def sieve() -> Iterator[Sieve]:
    loop = asyncio.new_event_loop()
    yield Sieve(loop)
    loop.close()


def marshalled(channel: int, *parts: Any) -> bytes:
    return b"".join(frame.marshal(part, channel) for part in parts)


def payload_of(part: Any) -> bytes:
    return frame.marshal(part, 1)[7:-1]


def left_to_the_client(sieve: Sieve) -> bytes:
    async def read() -> bytes:
        sieve.feed_eof()
        return await sieve.read()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (frames.ack(3, 9, is_multiple=False), commands.Basic.Ack(delivery_tag=9)),
        (frames.ack(3, 2**40, is_multiple=True), commands.Basic.Ack(delivery_tag=2**40, multiple=True)),
        (frames.requeue(3, 9), commands.Basic.Nack(delivery_tag=9, requeue=True)),
        (frames.reject(3, 9), commands.Basic.Reject(delivery_tag=9, requeue=True)),
        (frames.get(3, "q"), commands.Basic.Get(queue="q")),
        (frames.consume(3, "q", consumer_tag="c"), commands.Basic.Consume(queue="q", consumer_tag="c")),
        (frames.cancel(3, "c"), commands.Basic.Cancel(consumer_tag="c")),
    ],
)
def test_a_method_is_written_as_the_client_writes_it(ours: bytes, theirs: Any) -> None:
    assert ours == marshalled(3, theirs)


@pytest.mark.parametrize("body", [b"", b"{}", b"0123456789"])
@pytest.mark.parametrize("kind", ["", "task"])
def test_a_message_is_written_as_the_client_writes_it(body: bytes, kind: str) -> None:
    properties = frames.json_properties(message_id="m", kind=kind, is_persistent=True)

    ours = frames.publish(
        4, exchange="e", routing_key="k", is_mandatory=True, properties=properties, body=body, largest=4
    )

    theirs = commands.Basic.Properties(
        content_type="application/json", delivery_mode=2, message_id="m", message_type=kind or None
    )
    assert b"".join(ours) == marshalled(
        4,
        commands.Basic.Publish(exchange="e", routing_key="k", mandatory=True),
        ContentHeader(properties=theirs, body_size=len(body)),
        *(ContentBody(body[start : start + 4]) for start in range(0, len(body), 4)),
    )


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"content_type": "text/plain", "content_encoding": "gzip"},
        {"headers": {"x-delivery-count": 3, "größe": "ß"}, "priority": 4, "delivery_mode": 1},
        {"correlation_id": "c", "reply_to": "r", "expiration": "60000", "user_id": "guest", "app_id": "a"},
    ],
)
@pytest.mark.parametrize("message_id", ["", "m", "ß"])
def test_a_message_id_is_found_among_whatever_properties_other_clients_set(
    others: dict[str, Any], message_id: str
) -> None:
    properties = commands.Basic.Properties(message_id=message_id or None, **others)
    header = payload_of(ContentHeader(properties=properties, body_size=70_000))

    assert frames.message_id(header) == message_id
    assert frames.content_size(header) == 70_000


def test_what_is_read_of_a_method_is_what_the_client_reads() -> None:
    assert frames.delivered(payload_of(DELIVER)) == ("c.1", 7, True)
    assert frames.tagged(payload_of(commands.Basic.Ack(delivery_tag=5, multiple=True))) == (5, 1)
    assert frames.tagged(
        payload_of(
            commands.Basic.GetOk(delivery_tag=6, redelivered=False, exchange="", routing_key="q", message_count=0)
        )
    ) == (6, 0)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_a_channel_gets_its_frames_and_the_client_all_others_however_they_are_cut(sieve: Sieve, size: int) -> None:
    channel = sieve.takers[5] = Channel()
    header = ContentHeader(properties=commands.Basic.Properties(), body_size=300)
    closing = (
        marshalled(5, commands.Channel.CloseOk()) + marshalled(6, DELIVER) + marshalled(0, commands.Queue.BindOk())
    )
    stream = marshalled(5, DELIVER, header, ContentBody(bytes(300))) + closing

    for start in range(0, len(stream), size):
        sieve.feed_data(stream[start : start + size])

    taken = [each for each in channel.taken if each != "pause"]
    assert taken == [(Method.DELIVER, payload_of(DELIVER)), ("header", payload_of(header)), ("body", bytes(300))]
    assert channel.taken[-1] == "pause"
    assert left_to_the_client(sieve).replace(HEARTBEAT, b"") == closing


def test_the_client_sees_signs_of_life_while_all_frames_are_taken(sieve: Sieve) -> None:
    sieve.takers[5] = Channel()

    sieve.feed_data(marshalled(5, commands.Basic.Ack(delivery_tag=1)))
    sieve.feed_data(marshalled(5, commands.Basic.Ack(delivery_tag=2)))

    assert left_to_the_client(sieve) == HEARTBEAT


def test_what_is_no_frame_is_left_to_the_client(sieve: Sieve) -> None:
    sieve.takers[0] = Channel()

    sieve.feed_data(b"AMQP\0\0\x09\1")
    sieve.feed_data(b"\1and more")

    assert left_to_the_client(sieve) == b"AMQP\0\0\x09\1\1and more"
