"""All that may happen next, in any state: the Task Publisher's steps, the workers', the broker's, and each fault."""

from collections.abc import Iterator

from shepherd.domain.status import ENDED_RUN, AttemptStatus, RunStatus
from tests.model import checks
from tests.model.bounds import Bounds, Move
from tests.model.publisher import Outcome, Publisher, Step
from tests.model.rows import Rows
from tests.model.state import EXECUTING, FREE, Memory, State, Worker
from tests.model.workers import Hand


class System:
    """Everything around one Task Publisher."""

    def __init__(self, publisher: Publisher, bounds: Bounds) -> None:
        self._publisher = publisher
        self._bounds = bounds
        self._numbers: dict[Rows, int] = {}
        self._faults: list[str] = []
        #: Every database that there was, by number.
        self.rows: list[Rows] = []

    def number(self, rows: Rows) -> int:
        if rows not in self._numbers:
            self._numbers[rows] = len(self.rows)
            self.rows.append(rows)
            self._faults.append("; ".join(checks.rows_faults(rows)))
        return self._numbers[rows]

    def is_at_rest(self, state: State) -> bool:
        """Whether the run is over, and nothing of it lies anywhere any more."""
        memory = state.memory
        has_left = state.queue or state.replies or memory.waiting or memory.confirmed
        is_idle = all(worker.stage == FREE and not worker.spool for worker in state.workers)
        return self.rows[state.rows].run()["status"] in ENDED_RUN and is_idle and not has_left

    def rest_fault(self, state: State) -> str:
        status = self.rows[state.rows].run()["status"]
        has_failed_for_nothing = not sum(state.spent) and status != RunStatus.SUCCEEDED
        return f"nothing went wrong, and the run is {status}" if has_failed_for_nothing else ""

    def moves(self, state: State) -> Iterator[Move]:
        yield from self._by_itself(state)
        yield from self._tell(state)
        yield from self._record(state)
        for index, worker in enumerate(state.workers):
            # Workers are all alike: what one may do, its twin needn't.
            if worker not in state.workers[:index]:
                yield from self._worker_moves(state, index)
        yield from self._others(state)

    def _by_itself(self, state: State) -> Iterator[Move]:
        yield from self._step(state, Step("start"))
        if state.memory.waiting:
            yield from self._step(state, Step("send"))
        if state.memory.confirmed:
            yield from self._step(state, Step("confirm"))
        # What is on its way isn't published again, unless the broker takes longer than patience lasts.
        if not state.memory.waiting and not state.memory.confirmed:
            yield from self._step(state, Step("resend"))

    def _record(self, state: State) -> Iterator[Move]:
        for said in sorted(set(state.replies)):
            yield from self._step(state, Step("replies", (said,)))
        if len(state.replies) > 1:
            yield from self._step(state, Step("replies", state.replies))
            yield from self._step(state, Step("replies", state.replies[::-1]))

    def _tell(self, state: State) -> Iterator[Move]:
        """Whoever has the list has what was added to it as soon as that is said."""
        withdrawn = self._withdrawn(state)
        for move in self._step(state, Step("tell")):
            if not move.is_progress:
                yield move
                continue
            workers = tuple(_aware(worker, withdrawn) for worker in move.state.workers)
            yield move._replace(
                state=move.state._replace(workers=workers), broken=move.broken or next(map(_untold, workers), "")
            )

    def _worker_moves(self, state: State, index: int) -> Iterator[Move]:
        worker = state.workers[index]
        if not worker.is_up:
            started = worker._replace(is_up=True, due=self._withdrawn(state))
            yield Move("a worker starts", state.with_worker(index, started))
            return
        yield from Hand(state, index).moves(self._bounds)
        if worker.listed is None:
            for outcome in self._outcomes(state, Step("welcome")):
                listed = next((told.tokens for told in outcome.told if told.is_complete), None)
                welcomed = state.with_worker(index, worker._replace(listed=listed))
                yield self._moved(welcomed, Step("welcome"), outcome)

    def _others(self, state: State) -> Iterator[Move]:
        if self._bounds.allows(state, "publisher") and state.memory != Memory():
            dead = state._replace(memory=Memory()).spending("publisher")
            yield Move("the Task Publisher dies", dead, is_progress=False)
        if self._bounds.allows(state, "cancel"):
            for move in self._step(state, Step("cancel")):
                yield move._replace(state=move.state.spending("cancel"), is_progress=False)
        if self._bounds.allows(state, "duplicate"):
            twice = state.spending("duplicate")
            for token in sorted(set(state.queue)):
                yield Move(f"{token} comes twice", twice._replace(queue=(*state.queue, token)), is_progress=False)
            for said in sorted(set(state.replies)):
                yield Move(f"{said} comes twice", twice._replace(replies=(*state.replies, said)), is_progress=False)

    def _step(self, state: State, step: Step) -> Iterator[Move]:
        for outcome in self._outcomes(state, step):
            yield self._moved(state, step, outcome)

    def _outcomes(self, state: State, step: Step) -> Iterator[Outcome]:
        for outcome in self._publisher.outcomes(self.rows[state.rows], state.memory, step):
            if not outcome.died or self._bounds.allows(state, "publisher"):
                yield outcome

    def _moved(self, state: State, step: Step, outcome: Outcome) -> Move:
        replies = list(state.replies)
        for said in step.replies:
            replies.remove(said)
        number = self.number(outcome.rows)
        after = state._replace(
            rows=number,
            memory=outcome.memory,
            queue=(*state.queue, *outcome.published),
            replies=(*replies, *outcome.kept),
            workers=tuple(_hearing(worker, outcome) for worker in state.workers),
        )
        broken = outcome.broken or self._faults[number] or self._unrecorded(step, outcome)
        if outcome.died:
            label = f"{step}, dying before {outcome.died}"
            return Move(label, after.spending("publisher"), is_progress=False, broken=broken)
        return Move(str(step), after, broken=broken)

    def _unrecorded(self, step: Step, outcome: Outcome) -> str:
        """Return what is wrong if a reply is gone and would still change something: it was lost, or counts twice."""
        for said in set(step.replies) - set(outcome.kept):
            again = self._publisher.outcomes(outcome.rows, outcome.memory, Step("replies", (said,)))[0]
            if again.rows != outcome.rows:
                return f"{said} was acked, and would change something if it came again"
        return ""

    def _withdrawn(self, state: State) -> frozenset[str]:
        rows = self.rows[state.rows].each_attempt()
        return frozenset(row["token"] for row in rows if row["status"] == AttemptStatus.WITHDRAWN)

    def shown(self, state: State) -> str:
        rows = self.rows[state.rows]
        tasks = ", ".join(task["status"] for task in rows.each_task())
        attempts = ", ".join(f"{attempt['token']} {attempt['status']}" for attempt in rows.each_attempt())
        return f"the run is {rows.run()['status']}, its tasks {tasks}; attempts: {attempts or 'none'}"


def _hearing(worker: Worker, outcome: Outcome) -> Worker:
    if worker.listed is None:
        return worker
    return worker._replace(listed=worker.listed.union(*(told.tokens for told in outcome.told if not told.is_complete)))


def _aware(worker: Worker, withdrawn: frozenset[str]) -> Worker:
    return worker if worker.listed is None else worker._replace(due=worker.due | withdrawn)


def _untold(worker: Worker) -> str:
    unknown = worker.due - (worker.listed or frozenset())
    is_vain = worker.stage in EXECUTING and worker.token in unknown
    return f"{worker.token} was withdrawn, and its worker isn't told" if is_vain else ""
