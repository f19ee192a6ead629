"""Which consumer is a new one, and which is the same one again."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from shepherd.broker.consumers import Host, Lane, Link, Listener, QueueSubscription, Standing
from shepherd.broker.intakes import RotatingIntake, SingleIntake

NO_HOST = cast("Host", None)


class OpenLane:
    """A channel on which nothing comes."""

    def __init__(self, *, is_gone: bool) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_gone:
            self.gone.set_result(None)

    async def consume(self, queue: str, arrived: Callable[[Sequence[Any]], None]) -> None: ...
    async def close(self) -> None: ...


class OpenLink:
    """A connection whose queues all exist; its channels break at once if so wanted."""

    def __init__(self, *, breaks: bool = False) -> None:
        self._breaks = breaks

    async def lane(self, *, prefetch: int) -> Lane:  # noqa: ARG002
        return cast("Lane", OpenLane(is_gone=self._breaks))

    def presence(self, queue: str) -> asyncio.Task[None]:  # noqa: ARG002
        return asyncio.ensure_future(asyncio.sleep(0))

    def forget(self, queue: str) -> None: ...


def established(*links: OpenLink) -> int:
    """Return how often a subscription counts itself as established after these connections, one after the other."""

    async def serve() -> int:
        subscription = QueueSubscription(cast("Host", None), "a queue", prefetch=1, idle_s=0.01)
        for link in links:
            await subscription.serve(cast("Link", link))
            assert subscription.generation is None
        return subscription._established

    return asyncio.run(serve())


def test_a_consumer_that_is_opened_anew_for_being_idle_is_the_same_one() -> None:
    link = OpenLink()

    assert established(link, link, link) == 1


def test_another_connection_or_a_broken_channel_makes_it_a_new_one() -> None:
    broken = OpenLink(breaks=True)

    assert established(OpenLink(), OpenLink()) == 2
    assert established(broken, broken) == 2


@pytest.mark.parametrize(
    ("standing", "name"),
    [
        (QueueSubscription(NO_HOST, "shepherd.beats", prefetch=1), "shepherd.beats"),
        (Listener(NO_HOST, "shepherd.control", ["worker.all", "worker.w"]), "shepherd.control:worker.all,worker.w"),
        (SingleIntake(NO_HOST, "shepherd.task.a"), "shepherd.task.a"),
        (RotatingIntake(NO_HOST, ["shepherd.task.b", "shepherd.task.a"]), "shepherd.task.a,shepherd.task.b"),
    ],
)
def test_a_log_line_names_a_consumer_by_what_it_takes_from(standing: Standing, name: str) -> None:
    assert str(standing) == name
