"""All that may happen next, in any state: the Task Publisher's steps, the workers', the broker's, and each fault."""

from collections.abc import Iterator, Sequence

from shepherd.domain.status import ENDED_RUN, AttemptStatus, RunStatus
from tests.model import checks
from tests.model.bounds import Bounds, Move
from tests.model.publisher import Outcome, Publisher, Step
from tests.model.rows import Rows
from tests.model.state import CLAIMING, EXECUTING, FREE, HOLDING, WITH_DELIVERY, Memory, State, Worker
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
        if self._bounds.is_led:
            yield from self._lead(state)
        for index, worker in enumerate(state.workers):
            # Workers are all alike: what one may do, its twin needn't.
            if worker not in state.workers[:index]:
                yield from self._worker_moves(state, index)
        yield from self._others(state)

    def _by_itself(self, state: State) -> Iterator[Move]:
        yield from self._step(state, Step("start"))
        yield from self._watch(state, Step("watch", replies=state.replies))
        if state.memory.waiting:
            yield from self._step(state, Step("send"))
        if state.memory.confirmed:
            yield from self._step(state, Step("confirm"))
        # What is on its way isn't published again, unless the broker takes longer than patience lasts.
        if not state.memory.waiting and not state.memory.confirmed:
            yield from self._step(state, Step("resend"))
        if self._is_quiet(state):
            held = tuple(_held(worker) for worker in state.workers if worker.is_up)
            yield from self._watch(state, Step("lease", beats=held))

    def _is_quiet(self, state: State) -> bool:
        """Whether nothing happens but that tasks are executed: only then does as much time pass as a lease lasts."""
        rows, memory = self.rows[state.rows], state.memory
        is_over = rows.run()["status"] in ENDED_RUN
        if state.replies or memory.waiting or memory.confirmed or is_over or not all(map(_is_waiting, state.workers)):
            return False
        if state.queue and any(worker.is_up and worker.stage == FREE for worker in state.workers):
            return False
        steps = [self._publisher.outcomes(rows, memory, Step(name))[0] for name in ("start", "resend", "tell", "watch")]
        return all((outcome.rows, outcome.memory) == (rows, memory) for outcome in steps)

    def _watch(self, state: State, step: Step) -> Iterator[Move]:
        """Who hasn't listened for a lease gives nobody up; nor does who has, as long as the worker speaks."""
        before = self.rows[state.rows].tokens("lost")
        for move in self._step(state, step):
            executed = {worker.token for worker in state.workers if worker.is_up and worker.stage in EXECUTING}
            lost = executed & (self.rows[move.state.rows].tokens("lost") - before)
            is_false = state.memory.is_deaf or step.name == "lease"
            broken = f"{min(lost)} was given up as lost, and its worker lives" if lost and is_false else ""
            yield move._replace(broken=move.broken or broken)

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

    def _lead(self, state: State) -> Iterator[Move]:
        """Every owner that there was may still believe that it is the run's: only the latest one's writes count."""
        current = self.rows[state.rows].run()["owner_epoch"]
        if current == 0:
            yield from self._step(state, Step("take over"))
        elif self._bounds.allows(state, "takeover"):
            for move in self._step(state, Step("take over")):
                yield move._replace(state=move.state.spending("takeover"), is_progress=False)
        for epoch in range(1, current + 1):
            yield from self._fenced(self._step(state, Step("lead", epoch=epoch)), state, is_former=epoch < current)
        for epoch in range(1, current):
            yield from self._fenced(self._step(state, Step("give up", epoch=epoch)), state, is_former=True)

    def _fenced(self, moves: Iterator[Move], state: State, *, is_former: bool) -> Iterator[Move]:
        for move in moves:
            has_counted = is_former and move.state.rows != state.rows
            yield move._replace(broken="a former owner's write counted" if has_counted else move.broken)

    def _worker_moves(self, state: State, index: int) -> Iterator[Move]:
        worker = state.workers[index]
        if not worker.is_up:
            yield Move("a worker starts", state.with_worker(index, worker._replace(is_up=True)))
            return
        for move in Hand(state, index).moves(self._bounds):
            yield move._replace(broken=move.broken or self._overdone(move.state))
        if self._bounds.allows(state, "stall"):
            yield from self._stall(state, index)
        if worker.listed is None:
            for outcome in self._outcomes(state, Step("welcome")):
                move = self._moved(state, Step("welcome"), outcome)
                whole = [told.tokens for told in outcome.told if told.is_complete]
                welcomed = worker._replace(listed=whole[0], due=self._withdrawn(state)) if whole else worker
                yield move._replace(state=move.state.with_worker(index, welcomed))

    def _overdone(self, state: State) -> str:
        """Return what is wrong if a task was begun more often than there was a reason for."""
        # Each loss is one more: the ack that belongs to a claim may never have come, and then the lost attempt is
        # delivered beside the next one.
        losses = [task["losses"] for task in self.rows[state.rows].each_task()]
        for place, count in enumerate(state.begun):
            if count > 1 + sum(state.spent) + losses[place]:
                return f"task {place} was begun {count} times after {sum(state.spent)} faults"
        return ""

    def _stall(self, state: State, index: int) -> Iterator[Move]:
        """A worker isn't heard of for a while: the broker, or the Task Publisher, takes it for dead."""
        worker = state.workers[index]
        stalled = state
        if worker.stage in WITH_DELIVERY:
            stalled = Hand(state, index).cut_off()
        elif worker.stage == HOLDING:
            stalled = state._replace(rows=self.number(self.rows[state.rows].with_lease_over(worker.token)))
        if stalled != state:
            yield Move(f"a worker stands still with {worker.token}", stalled.spending("stall"), is_progress=False)

    def _others(self, state: State) -> Iterator[Move]:
        if self._bounds.allows(state, "publisher") and state.memory != Memory():
            dead = state._replace(memory=Memory()).spending("publisher")
            yield Move("the Task Publisher dies", dead, is_progress=False)
        for name in ("cancel", "resume"):
            if self._bounds.allows(state, name):
                for move in self._step(state, Step(name)):
                    yield move._replace(state=move.state.spending(name), is_progress=False)
        if self._bounds.allows(state, "silence"):
            rows = self.number(self.rows[state.rows].with_leases_over())
            deaf = state._replace(rows=rows, memory=state.memory._replace(is_deaf=True)).spending("silence")
            yield Move("the Task Publisher hears nothing for a lease", deaf, is_progress=False)
        yield from self._broker_faults(state)

    def _broker_faults(self, state: State) -> Iterator[Move]:
        for token in sorted(set(state.queue)):
            if self._bounds.allows(state, "duplicate"):
                twice = state._replace(queue=(*state.queue, token)).spending("duplicate")
                yield Move(f"{token} comes twice", twice, is_progress=False)
            if self._bounds.allows(state, "drop"):
                left = list(state.queue)
                left.remove(token)
                yield Move(f"{token} vanishes", state._replace(queue=tuple(left)).spending("drop"), is_progress=False)
        for said in sorted(set(state.replies)) if self._bounds.allows(state, "duplicate") else ():
            twice = state._replace(replies=(*state.replies, said)).spending("duplicate")
            yield Move(f"{said} comes twice", twice, is_progress=False)

    def _step(self, state: State, step: Step) -> Iterator[Move]:
        for outcome in self._outcomes(state, step):
            yield self._moved(state, step, outcome)

    def _outcomes(self, state: State, step: Step) -> Iterator[Outcome]:
        for outcome in self._publisher.outcomes(self.rows[state.rows], state.memory, step):
            if not outcome.died or self._bounds.allows(state, "publisher"):
                yield outcome

    def _moved(self, state: State, step: Step, outcome: Outcome) -> Move:
        replies = list(state.replies)
        if step.name == "replies":
            for said in step.replies:
                replies.remove(said)
            replies += outcome.kept
        number = self.number(outcome.rows)
        after = state._replace(
            rows=number,
            memory=outcome.memory,
            queue=(*state.queue, *outcome.published),
            replies=tuple(replies),
            workers=_hearing(state.workers, outcome),
        )
        broken = outcome.broken or self._faults[number] or self._unrecorded(step, outcome)
        if outcome.died:
            label = f"{step}, dying before {outcome.died}"
            return Move(label, after.spending("publisher"), is_progress=False, broken=broken)
        return Move(str(step), after, broken=broken)

    def _unrecorded(self, step: Step, outcome: Outcome) -> str:
        """Return what is wrong if a reply is gone and would still change something: it was lost, or counts twice."""
        for said in set(step.replies) - set(outcome.kept) if step.name == "replies" else ():
            if said.kind == "claimed" and said.token in outcome.rows.tokens("withdrawn"):
                # Withdrawn by the same batch. Its worker is told all the same, and its answer ends it.
                continue
            again = self._publisher.outcomes(outcome.rows, outcome.memory, Step("replies", (said,)))[0]
            if again.rows != outcome.rows:
                return f"{said} was acked, and would change something if it came again"
        return ""

    def _withdrawn(self, state: State) -> frozenset[str]:
        # Without what was answered: if its worker died between the answer and the ack, another one may begin it again,
        # and is told at its next heartbeat.
        rows = self.rows[state.rows].each_attempt()
        return frozenset(row["token"] for row in rows if row["status"] == AttemptStatus.WITHDRAWN and row["is_queued"])

    def shown(self, state: State) -> str:
        rows = self.rows[state.rows]
        tasks = ", ".join(task["status"] for task in rows.each_task())
        attempts = ", ".join(f"{attempt['token']} {attempt['status']}" for attempt in rows.each_attempt())
        return f"the run is {rows.run()['status']}, its tasks {tasks}; attempts: {attempts or 'none'}"


def _hearing(workers: Sequence[Worker], outcome: Outcome) -> tuple[Worker, ...]:
    heard = list(workers)
    speaking = [place for place, worker in enumerate(workers) if worker.is_up]
    for told in outcome.told:
        for place in speaking if told.worker is None else [speaking[told.worker]]:
            if (listed := heard[place].listed) is not None:
                heard[place] = heard[place]._replace(listed=listed | told.tokens)
    return tuple(heard)


def _held(worker: Worker) -> str:
    return worker.token if worker.stage in EXECUTING else ""


def _is_waiting(worker: Worker) -> bool:
    """Whether a worker executes, waits for a delivery, or isn't there."""
    if not worker.is_up:
        return True
    is_told = worker.listed is not None and worker.token not in worker.listed
    return is_told and not worker.spool and worker.stage in EXECUTING - {CLAIMING} | {FREE}


def _aware(worker: Worker, withdrawn: frozenset[str]) -> Worker:
    return worker if worker.listed is None else worker._replace(due=worker.due | withdrawn)


def _untold(worker: Worker) -> str:
    unknown = worker.due - (worker.listed or frozenset())
    is_vain = worker.stage in EXECUTING and worker.token in unknown
    return f"{worker.token} was withdrawn, and its worker isn't told" if is_vain else ""
