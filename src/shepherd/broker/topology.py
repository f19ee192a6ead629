"""Every name and every argument on the broker. What is frozen here can't be changed without new queues."""

from typing import Any, Final

from shepherd.broker.port import ExchangeSpec, QueueSpec

#: Dead letters of all queues arrive here, with the broker's reason in their `x-death` header.
DEAD_EXCHANGE: Final = "shepherd.dead"
DEAD_QUEUE: Final = "shepherd.dead"
REPLIES: Final = "shepherd.replies"
BEATS: Final = "shepherd.beats"
LOGS: Final = "shepherd.logs"
#: To every worker (`worker.#`), to one (`worker.<id>`), or to the Task Publisher (`publisher.#`).
CONTROL_EXCHANGE: Final = "shepherd.control"
ALL_WORKERS_KEY: Final = "worker.all"
PUBLISHER_KEY: Final = "publisher.wake"

#: Heartbeats and manifests are worth little when old: the oldest make room.
_BEATS_LIMIT: Final = 10_000
#: Bytes of log lines that wait while no Task Publisher runs.
_LOGS_LIMIT: Final = 256 * 1024 * 1024

#: RabbitMQ 4 drops what was delivered 20 times unless told otherwise; a reply is given back for as long as the
#: database is away. A number, since 3.10 doesn't know -1.
_KEPT: Final = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}

EXCHANGES: Final = (
    ExchangeSpec(name=DEAD_EXCHANGE, kind="fanout"),
    ExchangeSpec(name=CONTROL_EXCHANGE, kind="topic"),
)

STANDING_QUEUES: Final = (
    QueueSpec(name=DEAD_QUEUE, arguments=_KEPT, bindings=((DEAD_EXCHANGE, ""),)),
    QueueSpec(name=REPLIES, arguments=_KEPT),
    # On most nodes of a cluster, though worth little: while nobody hears a worker's manifest it is sent no list of
    # withdrawn attempts, and takes nothing.
    QueueSpec(
        name=BEATS, arguments={"x-queue-type": "quorum", "x-max-length": _BEATS_LIMIT, "x-overflow": "drop-head"}
    ),
    QueueSpec(
        name=LOGS, arguments={"x-queue-type": "classic", "x-max-length-bytes": _LOGS_LIMIT, "x-overflow": "drop-head"}
    ),
)

#: Frozen for version 1: a durable queue's arguments can't be changed. At-least-once dead-lettering needs
#: `reject-publish`; without both, a message over the delivery limit vanishes silently.
TASK_QUEUE_ARGUMENTS: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": DEAD_EXCHANGE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def worker_key(worker: str) -> str:
    """Return the key on the control exchange that reaches one worker, by its id."""
    return f"worker.{worker}"


def task_queue(name: str) -> str:
    """Return the name of the queue that all workers of a task share."""
    return f"shepherd.task.{name}"


def is_task_queue(queue: str) -> bool:
    return queue.startswith(task_queue(""))


def task_queue_spec(name: str) -> QueueSpec:
    return QueueSpec(name=task_queue(name), arguments=TASK_QUEUE_ARGUMENTS)
