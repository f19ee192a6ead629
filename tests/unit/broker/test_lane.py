"""A channel's bookkeeping: what may be acked together, and what a confirm confirms."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pamqp import commands, frame
from pamqp.header import ContentHeader

from shepherd.broker.frames import Method
from shepherd.broker.lane import Lane
from shepherd.broker.parcel import Parcel
from shepherd.broker.port import Message
from shepherd.errors import BrokerUnavailableError, QueueMissingError


class Wire:
    """A channel that keeps what is written."""

    number = 1
    largest = 1000
    is_open = True

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, data: bytes) -> None:
        while data:
            size, _, part = frame.unmarshal(data)
            self.written.append(part)
            data = data[size:]

    def headers_of(self, _: bytes) -> Mapping[str, Any]:
        return {}

    async def bound_queue(self, exchange: str, keys: Sequence[str]) -> str:
        raise NotImplementedError

    async def close(self) -> None:
        return


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def lane(wire: Wire) -> Lane:
    async def made() -> Lane:
        return Lane(wire)

    return asyncio.run(made())


def acks(wire: Wire) -> list[tuple[int, bool]]:
    return [(part.delivery_tag, part.multiple) for part in wire.written if isinstance(part, commands.Basic.Ack)]


def parcel(*ids: str) -> Parcel:
    return Parcel([Message(routing_key="q", body=b"", message_id=each) for each in ids])


def say(lane: Lane, part: Any) -> None:
    lane.method(Method[part.name.partition(".")[2].upper()], frame.marshal(part, 1)[7:-1])


def test_a_batch_in_the_order_of_its_arrival_is_one_ack(lane: Lane, wire: Wire) -> None:
    lane.ack([1, 2, 3])
    lane.ack([4])
    lane.ack([5, 6])

    assert acks(wire) == [(3, True), (4, False), (6, True)]


@pytest.mark.parametrize("tags", [[2, 3], [1, 3], [3, 2, 1]])
def test_no_ack_covers_what_is_in_other_hands(lane: Lane, wire: Wire, tags: list[int]) -> None:
    lane.ack(tags)

    assert acks(wire) == [(tag, False) for tag in tags]


def test_what_was_settled_out_of_order_does_not_keep_later_batches_apart(lane: Lane, wire: Wire) -> None:
    lane.ack([2, 3])
    lane.requeue([1])
    lane.ack([4, 5])

    assert acks(wire)[-1] == (5, True)


def test_one_confirm_may_confirm_all_before_it(lane: Lane) -> None:
    sent = parcel("a", "b", "c")

    lane.publish(sent)
    say(lane, commands.Basic.Ack(delivery_tag=2, multiple=True))
    say(lane, commands.Basic.Nack(delivery_tag=3))

    first, second, third = sent.wait(1.0)
    assert (first, second) == (None, None)
    assert isinstance(third, BrokerUnavailableError)


def test_what_came_back_is_reported_by_its_id_when_its_confirm_comes(lane: Lane) -> None:
    sent = parcel("a", "b")

    lane.publish(sent)
    say(lane, commands.Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q"))
    properties = commands.Basic.Properties(message_id="b")
    lane.header(frame.marshal(ContentHeader(properties=properties, body_size=0), 1)[7:-1])
    say(lane, commands.Basic.Ack(delivery_tag=2, multiple=True))

    first, second = sent.wait(1.0)
    assert first is None
    assert isinstance(second, QueueMissingError)


def test_a_channel_that_was_refused_a_message_says_so(lane: Lane) -> None:
    lane.publish(parcel("a", "b"))
    say(lane, commands.Basic.Ack(delivery_tag=1))
    before = lane.is_refusing

    say(lane, commands.Basic.Nack(delivery_tag=2))

    assert not before
    assert lane.is_refusing


def test_an_id_in_flight_is_not_sent_again_before_its_confirm(lane: Lane) -> None:
    lane.publish(parcel("a"))
    before = lane.can_publish(parcel("b", "a").messages)

    say(lane, commands.Basic.Ack(delivery_tag=1))

    assert not before
    assert lane.can_publish(parcel("b", "a").messages)


def test_what_is_unconfirmed_at_the_end_of_a_channel_is_reported(lane: Lane) -> None:
    sent = parcel("a", "b")

    lane.publish(sent)
    say(lane, commands.Basic.Ack(delivery_tag=1))
    lane.leave()

    first, second = sent.wait(1.0)
    assert first is None
    assert isinstance(second, BrokerUnavailableError)


def test_what_is_published_on_a_closed_channel_is_refused_at_once(lane: Lane, wire: Wire) -> None:
    sent = parcel("a")

    lane.leave()
    lane.publish(sent)

    assert isinstance(sent.wait(0)[0], BrokerUnavailableError)
    assert wire.written == []


def test_what_comes_for_a_cancelled_consumer_goes_back(lane: Lane, wire: Wire) -> None:
    say(lane, commands.Basic.Deliver("cancelled", 7, False, "", "q"))
    lane.header(frame.marshal(ContentHeader(body_size=2), 1)[7:-1])
    lane.body(b"{}")

    assert [(part.delivery_tag, part.requeue) for part in wire.written] == [(7, True)]
