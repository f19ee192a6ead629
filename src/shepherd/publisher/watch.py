"""What falls due by itself, or must be concluded from silence: looked for each second."""

from collections.abc import Callable
from datetime import datetime

from shepherd.broker.port import Broker
from shepherd.broker.topology import BEATS, REPLIES, STANDING_QUEUES
from shepherd.publisher.ears import Ears
from shepherd.publisher.relay import Relay


class Watch:
    """Lets the relay do what nobody tells it to, and what silence says only if this Task Publisher would have heard."""

    def __init__(self, broker: Broker, relay: Relay, ears: Ears, *, database_time: Callable[[], datetime]) -> None:
        self._broker = broker
        self._relay = relay
        self._ears = ears
        self._database_time = database_time

    def look(self) -> None:
        self._relay.retry()
        self._relay.forget_unqueued()
        # A task that nobody seems to have begun, or ended, in time may have been: its reply waits, here or in a spool.
        if self._ears.have_heard(database_at=self._database_time()) and self._relay.has_silent():
            self._conclude()

    def _conclude(self) -> None:
        if self._ears.are_done():
            self._relay.end_overdue()
            self._relay.end_leases()
            self._relay.resend_missed()
        elif not self._has_backlog():
            # What is in hand now is worked through first: the next look decides.
            self._ears.emptied()

    def _has_backlog(self) -> bool:
        heard = [queue for queue in STANDING_QUEUES if queue.name in (BEATS, REPLIES)]
        return any(compared.messages for compared in self._broker.compare(queues=heard))
