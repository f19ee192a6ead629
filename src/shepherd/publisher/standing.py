"""What has to be there on the broker: looked after as long as somebody may delete it."""

import logging
import time
from datetime import timedelta
from typing import Final

from shepherd.broker.port import Broker, Message
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, EXCHANGES, STANDING_QUEUES
from shepherd.errors import BrokerUnavailableError
from shepherd.wire.control import Hello

logger = logging.getLogger(__name__)

_EVERY: Final = timedelta(seconds=30)
#: While nothing can be consumed, as after the broker was wiped.
_EVERY_IN_NEED: Final = timedelta(seconds=2)


class Topology:
    """Exchanges and standing queues: declared at the start, and looked after while the broker may be wiped."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._declared_at = float("-inf")
        self._is_whole = False
        self._has_said_hello = False

    def ensure(self, *, is_in_need: bool) -> bool:
        """Declare what may be missing, if that is due; return whether it was."""
        every = _EVERY_IN_NEED if is_in_need or not self._is_whole else _EVERY
        if time.monotonic() - self._declared_at < every.total_seconds() or not self._broker.is_connected:
            return False
        self._is_whole = self._declare()
        self._declared_at = time.monotonic()
        if not self._has_said_hello:
            hello = Message(
                exchange=CONTROL_EXCHANGE,
                routing_key=ALL_WORKERS_KEY,
                body=Hello().to_bytes(),
                type="hello",
                is_mandatory=False,
                is_persistent=False,
            )
            self._broker.publish([hello])
            self._has_said_hello = True
        return True

    def _declare(self) -> bool:
        try:
            self._broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        except BrokerUnavailableError as error:
            # A node that is away takes along what lives on it alone: the logs. Work goes on without them.
            logger.warning("publisher.undeclared", extra={"reason": str(error)})
            return False
        return True
