"""What all slots of a worker share."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from shepherd.broker.port import Broker
from shepherd.wire.manifest import TaskOffer
from shepherd.worker.attempt import Hands
from shepherd.worker.outbox import Outbox
from shepherd.worker.process import ChildProcess
from shepherd.worker.replies import Replies
from shepherd.worker.sight import Sight
from shepherd.worker.withdrawn import WithdrawnList


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all slots of a worker share."""

    worker: str
    broker: Broker
    outbox: Outbox
    replies: Replies
    hands: Hands
    withdrawn: WithdrawnList
    sight: Sight
    #: Set once nothing new is to be taken.
    stopping: threading.Event
    #: A task that runs longer is claimed.
    hold_s: float
    start_child: Callable[[], ChildProcess]
    #: Parses a hello's payload, keeps it as the worker's offer, and returns it.
    welcome: Callable[[bytes], tuple[TaskOffer, ...]]
