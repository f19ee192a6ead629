"""What workers say: how attempts went, that they live, what they serve, and what their tasks log."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from shepherd.broker.port import Delivery, Subscription
from shepherd.errors import DatabaseUnavailableError, ProtocolError
from shepherd.pipelines import catalogue, leases, logbook
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.relay import REFUSALS, UNAVAILABLE, Relay
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.wire.beat import Beat, parse_beat
from shepherd.wire.fields import parse_kind
from shepherd.wire.logs import LogLines
from shepherd.wire.manifest import Manifest

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

AT_ONCE: Final = 200
#: Replies that one transaction records at most.
REPLIES_AT_ONCE: Final = 100


def hear_replies(subscription: Subscription, relay: Relay, *, gather_s: float = 0.0) -> int:
    """Take what comes from `shepherd.replies` within a second, have it recorded, and return how much it was.

    `gather_s` after the first one whatever else has come by then is taken with it.
    """
    deliveries = subscription.take(at_most=REPLIES_AT_ONCE, wait_s=1.0)
    if not deliveries:
        return 0
    if gather_s:
        # Slept, not waited for the next one: there is one at once when it is worth gathering.
        time.sleep(gather_s)
        deliveries += subscription.take(at_most=REPLIES_AT_ONCE - len(deliveries), wait_s=0)
    try:
        relay.take_replies(deliveries)
    except BaseException:
        subscription.release(deliveries)
        raise
    # After the commit: a crash before this line brings the replies again, and changes nothing.
    subscription.ack(deliveries)
    return len(deliveries)


def hear_beats(subscription: Subscription, dispatch: Dispatch, withdrawing: Withdrawing) -> None:
    """Take what has come from `shepherd.beats`, for a second at most. What isn't understood is logged and dropped.

    Raises:
        DatabaseUnavailableError: Nothing was stored; it comes again.
    """
    deliveries = subscription.take(at_most=AT_ONCE, wait_s=1.0)
    said = [message for delivery in deliveries if (message := _read(delivery)) is not None]
    # The latest word of each worker: a backlog is not worth a transaction each.
    manifests = {each.worker: each for each in said if isinstance(each, Manifest)}
    beats = {each.worker: each for each in said if isinstance(each, Beat)}
    with _settled(subscription, deliveries):
        in_vain = _store(manifests, beats)
    for worker, tokens in in_vain.items():
        withdrawing.tell(worker, tokens)
    # A worker takes nothing before it has the list.
    withdrawing.tell_all_to({manifest.worker for manifest in manifests.values() if manifest.wants_withdrawals})
    names = {task.name for manifest in manifests.values() for task in manifest.tasks}
    if names:
        # A worker waits for its queues, and only we declare them.
        dispatch.serve(names)


def _store(manifests: Mapping[str, Manifest], beats: Mapping[str, Beat]) -> dict[str, list[str]]:
    """Store what workers said, and return the attempts that they work on in vain."""
    now = datetime.now(UTC)
    holds = {beat.worker: beat.holds for beat in beats.values()}
    in_vain = _tried(lambda: leases.renew(holds, now=now))
    for manifest in manifests.values():
        _tried(partial(catalogue.announce, manifest, now=now))
    _tried(lambda: catalogue.beat(list(beats.values()), now=now))
    return in_vain or {}


def hear_logs(subscription: Subscription) -> None:
    """Take what has come from `shepherd.logs`, for a second at most.

    Raises:
        DatabaseUnavailableError: Nothing was stored; it comes again.
    """
    deliveries = subscription.take(at_most=AT_ONCE, wait_s=1.0)
    batch = [lines for delivery in deliveries if (lines := _read_lines(delivery)) is not None]
    with _settled(subscription, deliveries):
        if batch:
            _tried(lambda: logbook.append_log_lines(batch, now=datetime.now(UTC)))


@contextmanager
def _settled(subscription: Subscription, deliveries: Sequence[Delivery]) -> Iterator[None]:
    """Ack the deliveries in the end; give them back only where the database is away.

    After what nobody foresaw they are worth less than what would wait behind them: what is never settled fills the
    prefetch, and nothing more is heard.
    """
    try:
        yield
    except DatabaseUnavailableError:
        subscription.release(deliveries)
        raise
    except BaseException:
        subscription.ack(deliveries)
        raise
    subscription.ack(deliveries)


def _tried(store: Callable[[], _T]) -> _T | None:
    """Store something, or log that the database refuses it: it always will, and must not keep the others waiting."""
    try:
        return store()
    except UNAVAILABLE as error:
        raise DatabaseUnavailableError(str(error)) from error
    except REFUSALS:
        logger.exception("message.refused")
        return None


def _read(delivery: Delivery) -> Beat | Manifest | None:
    try:
        is_manifest = parse_kind(delivery.body) == "manifest"
        return Manifest.parse(delivery.body) if is_manifest else parse_beat(delivery.body)
    except ProtocolError as error:
        _dropped(delivery, error)
        return None


def _read_lines(delivery: Delivery) -> LogLines | None:
    try:
        return LogLines.parse(delivery.body)
    except ProtocolError as error:
        _dropped(delivery, error)
        return None


def _dropped(delivery: Delivery, error: ProtocolError) -> None:
    logger.warning("message.dropped", extra={"queue": delivery.queue, "reason": str(error)})
