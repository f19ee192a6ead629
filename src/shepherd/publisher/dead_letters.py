"""What arrives in `shepherd.dead`: a task that the broker gave up, or a message that nobody can use."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shepherd.broker.port import Delivery, Subscription
from shepherd.broker.topology import is_task_queue
from shepherd.errors import DatabaseUnavailableError, ProtocolError
from shepherd.pipelines.dead import keep_dead_message
from shepherd.pipelines.setbacks import DELIVERED_TOO_OFTEN
from shepherd.publisher.relay import REFUSALS, UNAVAILABLE, Relay
from shepherd.wire.control import DeadLetter
from shepherd.wire.envelope import TaskEnvelope, TaskError

logger = logging.getLogger(__name__)

AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class _Death:
    """What the broker says about a message that it gave up."""

    queue: str
    #: `delivery_limit`, `rejected`, `expired` or `maxlen`.
    reason: str


def take_dead_letters(subscription: Subscription, relay: Relay) -> None:
    """Take what has come to `shepherd.dead`, for a second at most. Each is tried once and then acked, whatever it is.

    Raises:
        DatabaseUnavailableError: What wasn't stored comes again.
    """
    deliveries = subscription.take(at_most=AT_ONCE, wait_s=1.0)
    try:
        for delivery in deliveries:
            _take(delivery, relay)
            subscription.ack([delivery])
    except BaseException:
        subscription.release(deliveries)
        raise


def _take(delivery: Delivery, relay: Relay) -> None:
    try:
        if not _is_given_up(delivery, relay):
            _keep(delivery)
    except UNAVAILABLE as error:
        raise DatabaseUnavailableError(str(error)) from error
    except REFUSALS as error:
        logger.exception("dead_letter.refused", extra={"bytes": len(delivery.body)})
        _keep_place(delivery, error)


def _is_given_up(delivery: Delivery, relay: Relay) -> bool:
    """End the attempt that a delivery of a task's queue belongs to; False if there is none."""
    death = _death(delivery.headers)
    if death is None or not is_task_queue(death.queue):
        return False
    token = _token(delivery)
    return bool(token) and relay.give_up_delivery(token, _error(death))


def _error(death: _Death) -> TaskError:
    if death.reason == "delivery_limit":
        message = "every worker that it was delivered to went away without an answer, until RabbitMQ gave it up"
        return TaskError(code=DELIVERED_TOO_OFTEN, message=message)
    return TaskError(code="rejected", message=f"RabbitMQ took it out of its queue: {death.reason}")


def _keep(delivery: Delivery) -> None:
    letter = _letter(delivery)
    logger.warning("dead_letter.kept", extra={"source": letter.source, "reason": letter.reason})
    keep_dead_message(source=letter.source, reason=letter.reason, body=letter.body, now=datetime.now(UTC))


def _keep_place(delivery: Delivery, error: Exception) -> None:
    reason = f"the database refused it: {type(error).__name__}"
    try:
        keep_dead_message(source=delivery.queue, reason=reason, body=b"", now=datetime.now(UTC))
    except UNAVAILABLE as unavailable:
        raise DatabaseUnavailableError(str(unavailable)) from unavailable
    except REFUSALS:
        logger.exception("dead_letter.dropped")


def _letter(delivery: Delivery) -> DeadLetter:
    """Return a delivery as one of our own letters, which say the source and the reason."""
    try:
        return DeadLetter.parse(delivery.body)
    except ProtocolError:
        death = _death(delivery.headers)
    source = death.queue if death is not None else delivery.queue
    return DeadLetter(reason=_reason(delivery, death), source=source, body=delivery.body)


def _reason(delivery: Delivery, death: _Death | None) -> str:
    if death is not None and is_task_queue(death.queue) and _token(delivery):
        return f"{death.reason}; no attempt has this token"
    said = f"{death.reason}; " if death is not None else ""
    try:
        TaskEnvelope.parse(delivery.body)
    except ProtocolError as error:
        return f"{said}{error}"
    return f"{said}a task that was sent here directly"


def _token(delivery: Delivery) -> str:
    try:
        return TaskEnvelope.parse(delivery.body).token
    except ProtocolError:
        # What can't be read may still say by its properties which attempt it is.
        return delivery.message_id


def _death(headers: Mapping[str, Any]) -> _Death | None:
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(latest, Mapping):
        return None
    return _Death(_text(latest.get("queue")), _text(latest.get("reason")))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
