"""What a worker does with what it is given, as the protocol has it, and how it may end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.model.bounds import Bounds, Move
from tests.model.state import (
    ANSWERED,
    ANSWERING,
    CLAIMING,
    EXECUTING,
    FREE,
    HOLDING,
    STARTED,
    WITH_DELIVERY,
    YOUNG,
    Said,
    State,
    Worker,
    position,
)


@dataclass(frozen=True)
class Hand:
    """One worker in a state, about to move."""

    state: State
    index: int

    @property
    def worker(self) -> Worker:
        return self.state.workers[self.index]

    def moves(self, bounds: Bounds) -> Iterator[Move]:
        worker = self.worker
        if worker.listed is not None and worker.stage == FREE:
            yield from (self._takes(token) for token in sorted(set(self.state.queue)))
        if worker.spool:
            yield self._sends()
        if worker.stage == ANSWERED:
            yield Move(f"acks {worker.token}", self._with(stage=FREE, token=""))
        if worker.stage == CLAIMING:
            yield Move(f"acks {worker.token}, claimed", self._with(stage=HOLDING))
        if worker.stage in EXECUTING - {CLAIMING}:
            yield from self._executes(bounds)
        if bounds.allows(self.state, "worker"):
            yield from self._dies()

    def _takes(self, token: str) -> Move:
        queue = list(self.state.queue)
        queue.remove(token)
        taken = Hand(self.state._replace(queue=tuple(queue)), self.index)
        if token in (self.worker.listed or ()):
            return Move(f"refuses {token}", taken._ends(token, "withdrawn"))
        return taken._begins(token)

    def _begins(self, token: str) -> Move:
        begun = tuple(count + (at == position(token)) for at, count in enumerate(self.state.begun))
        broken = f"{token} was begun after it was withdrawn" if token in self.worker.due else ""
        return Move(f"begins {token}", self._with(stage=YOUNG, token=token)._replace(begun=begun), broken=broken)

    def _executes(self, bounds: Bounds) -> Iterator[Move]:
        token = self.worker.token
        yield Move(f"{token} succeeds", self._ends(token, "succeeded"))
        if bounds.allows(self.state, "fail"):
            yield Move(f"{token} fails", self._ends(token, "failed").spending("fail"), is_progress=False)
        if token in (self.worker.listed or ()):
            yield Move(f"{token} is killed", self._ends(token, "withdrawn"))
        if self.worker.stage == YOUNG and bounds.says_started:
            yield Move(f"says started({token})", self._says("started", stage=STARTED))
        if self.worker.stage in {YOUNG, STARTED} and bounds.claims:
            yield Move(f"says claimed({token})", self._says("claimed", stage=CLAIMING))

    def _ends(self, token: str, kind: str) -> State:
        """Put the answer into the spool; a slot that has no delivery to ack is free."""
        spool = (*self.worker.spool, Said(kind, token))
        if self.worker.stage == HOLDING:
            return self._with(stage=FREE, token="", spool=spool)
        return self._with(stage=ANSWERING, token=token, spool=spool)

    def _sends(self) -> Move:
        worker, said = self.worker, self.worker.spool[0]
        # In the order of the spool: the answer for what is in the slot is its last.
        is_own = worker.stage == ANSWERING and len(worker.spool) == 1
        sent = self._with(spool=worker.spool[1:], stage=ANSWERED if is_own else worker.stage)
        return Move(f"the broker has {said}", sent._replace(replies=(*self.state.replies, said)))

    def _says(self, kind: str, *, stage: str) -> State:
        said = Said(kind, self.worker.token)
        return self._with(stage=stage)._replace(replies=(*self.state.replies, said))

    def _dies(self) -> Iterator[Move]:
        worker = self.worker
        dead = Worker(is_up=False, spool=worker.spool, listed=None)
        label = f"a worker dies with {worker.token or 'nothing'}"
        yield Move(label, self._returned().with_worker(self.index, dead).spending("worker"), is_progress=False)
        if worker.stage == HOLDING:
            gone = dead._replace(spool=(*worker.spool, Said("lost", worker.token)))
            after = self.state.with_worker(self.index, gone).spending("worker")
            yield Move(f"a worker gives {worker.token} up and ends", after, is_progress=False)

    def cut_off(self) -> State:
        """Return what is when the broker takes the worker's connection for dead; what it executes, it executes."""
        stage = HOLDING if self.worker.stage in EXECUTING else FREE
        token = self.worker.token if stage == HOLDING else ""
        return self._returned().with_worker(self.index, self.worker._replace(stage=stage, token=token))

    def _returned(self) -> State:
        back = (self.worker.token,) if self.worker.stage in WITH_DELIVERY else ()
        return self.state._replace(queue=(*self.state.queue, *back))

    def _with(self, **changes: Any) -> State:
        return self.state.with_worker(self.index, self.worker._replace(**changes))
