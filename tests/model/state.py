"""A state of the whole system: rows, queues, two workers, and what the Task Publisher remembers."""

from typing import Final, NamedTuple

#: What may go wrong, and what people may ask for; a state counts what was spent of each.
KINDS: Final = ("publisher", "worker", "duplicate", "drop", "stall", "silence", "fail", "cancel", "resume", "takeover")
#: These are no faults: the system has to live with them at no cost.
ASKED: Final = frozenset({"fail", "cancel", "resume"})

#: A worker's slot: nothing in it; executing with the delivery in hand, unheard of or said to be `started`; claimed
#: with the delivery still in hand; executing without a delivery; done, the reply in the spool; the reply confirmed.
FREE: Final = ""
YOUNG: Final = "young"
STARTED: Final = "started"
CLAIMING: Final = "claiming"
HOLDING: Final = "holding"
ANSWERING: Final = "answering"
ANSWERED: Final = "answered"

EXECUTING: Final = frozenset({YOUNG, STARTED, CLAIMING, HOLDING})
WITH_DELIVERY: Final = frozenset({YOUNG, STARTED, CLAIMING, ANSWERING, ANSWERED})


class Said(NamedTuple):
    """A reply: `started`, `claimed`, `withdrawn`, or `finished` as `succeeded`, `failed` or `lost`."""

    kind: str
    token: str

    def __str__(self) -> str:
        return f"{self.kind}({self.token})"


class Worker(NamedTuple):
    is_up: bool = True
    stage: str = FREE
    #: Of what the slot has.
    token: str = ""
    spool: tuple[Said, ...] = ()
    #: The withdrawn attempts that it knows of; None before it has the list.
    listed: frozenset[str] | None = frozenset()
    #: What it must know by now, since it was withdrawn before the worker began, or before the last broadcast.
    due: frozenset[str] = frozenset()


class Memory(NamedTuple):
    """What a Task Publisher remembers, and what a crash makes it forget."""

    #: Tokens that are about to be published, and that are published and not yet noted as confirmed.
    waiting: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    told: frozenset[str] = frozenset()
    #: Has not listened for a whole lease yet.
    is_deaf: bool = True


class State(NamedTuple):
    #: Number of the database's rows in the explorer's table.
    rows: int
    #: Tokens in the tasks' queues, and the replies: in any order, since any order may happen.
    queue: tuple[str, ...]
    replies: tuple[Said, ...]
    workers: tuple[Worker, ...]
    memory: Memory
    spent: tuple[int, ...]
    #: How often each task was begun.
    begun: tuple[int, ...]

    def canonical(self) -> "State":
        """Return the same state, as it is called: queues and workers in an order of their own."""
        return self._replace(
            queue=tuple(sorted(self.queue)),
            replies=tuple(sorted(self.replies)),
            workers=tuple(sorted(self.workers, key=_order)),
        )

    def with_worker(self, index: int, worker: Worker) -> "State":
        return self._replace(workers=(*self.workers[:index], worker, *self.workers[index + 1 :]))

    def spending(self, kind: str) -> "State":
        place = KINDS.index(kind)
        return self._replace(spent=(*self.spent[:place], self.spent[place] + 1, *self.spent[place + 1 :]))

    @property
    def faults(self) -> int:
        return sum(count for kind, count in zip(KINDS, self.spent, strict=True) if kind not in ASKED)


def _order(worker: Worker) -> tuple[object, ...]:
    listed = ("-",) if worker.listed is None else tuple(sorted(worker.listed))
    return (worker.is_up, worker.stage, worker.token, worker.spool, listed, tuple(sorted(worker.due)))


def position(token: str) -> int:
    """Return the position of the task that a token, as in `t1a2`, belongs to."""
    return int(token[1 : token.index("a")])
