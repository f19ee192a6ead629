"""Telling workers which attempts must not be executed: the whole list to whoever asks, what is added to it to all."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from shepherd.broker.port import Broker, Message
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, worker_key
from shepherd.pipelines.withdrawn import queued_lost, queued_withdrawn
from shepherd.wire.control import StoreMark, Withdrawals

logger = logging.getLogger(__name__)

#: Bytes of a routing key, by AMQP.
_LONGEST_KEY: Final = 255


class Withdrawing:
    """Tells workers what was withdrawn. What it remembers only saves repetitions: a new one says everything again."""

    def __init__(self, broker: Broker, *, mark: Callable[[], StoreMark | None] = lambda: None) -> None:
        """Tell them over a broker, and beside it how to find out whether they see the store."""
        self._broker = broker
        self._mark = mark
        #: What every worker was told, as long as the broker may have the message.
        self._told: set[str] = set()
        # A whole list takes the place of what a worker had: one that was read before an addition must not follow it.
        self._order = threading.Lock()

    def tell_new(self) -> None:
        """Broadcast what was withdrawn since the last call. What the broker doesn't take is told again by the next."""
        if not self._broker.is_connected:
            return
        with self._order:
            current, lost = queued_withdrawn(), queued_lost()
            self._told.intersection_update([*current, *lost])
            new = Withdrawals(tokens=self._untold(current), lost=self._untold(lost))
            if (new.tokens or new.lost) and self._send(ALL_WORKERS_KEY, new):
                self._told.update(new.tokens, new.lost)

    def tell_store(self) -> None:
        """Broadcast the mark in the store, to those that asked for the list before it was there."""
        self._send(ALL_WORKERS_KEY, Withdrawals(tokens=()))

    def tell_all_to(self, workers: Collection[str]) -> None:
        """Send each of these workers the whole list."""
        if not workers:
            return
        with self._order:
            whole = Withdrawals(tokens=tuple(queued_withdrawn()), lost=tuple(queued_lost()), is_complete=True)
            for worker in workers:
                self._send(worker_key(worker), whole)

    def tell(self, worker: str, tokens: Sequence[str]) -> None:
        """Send one worker what it seems not to have heard."""
        self._send(worker_key(worker), Withdrawals(tokens=tuple(tokens)))

    def _untold(self, tokens: Sequence[str]) -> tuple[str, ...]:
        return tuple(token for token in tokens if token not in self._told)

    def _send(self, key: str, withdrawals: Withdrawals) -> bool:
        if len(key.encode()) > _LONGEST_KEY:
            logger.warning("withdrawals.unsent", extra={"key": key, "reason": "no routing key is as long"})
            return False
        message = Message(
            exchange=CONTROL_EXCHANGE,
            routing_key=key,
            body=replace(withdrawals, store=self._mark()).to_bytes(),
            type="withdrawals",
            is_mandatory=False,
            is_persistent=False,
        )
        (failure,) = self._broker.publish([message])
        if failure is not None:
            logger.warning("withdrawals.unsent", extra={"key": key, "reason": str(failure)})
        return failure is None
