"""What must be true when everything has come to rest, whatever happened before."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from tests.support.faults.injected import Window
from tests.support.faults.ledger import Execution
from tests.support.faults.records import Records, Row

#: Between two clocks of one machine, one of them read a moment before its row was written.
_CLOCK_S = 0.005


@dataclass(slots=True, kw_only=True)
class Findings:
    """What isn't as it must be, in sentences; all empty when all holds."""

    lost: list[str] = field(default_factory=list)
    recorded_twice: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    #: Not faults, but figures.
    runs: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    repeated: int = 0

    def drop(self, told: Collection[str]) -> None:
        """Leave out what was told before, so that of several tests on one system only the first fails for it."""
        for sentences in (self.lost, self.recorded_twice, self.stale, self.beyond, self.others):
            sentences[:] = [sentence for sentence in sentences if sentence not in told]

    def all(self) -> list[str]:
        return [*self.lost, *self.recorded_twice, *self.stale, *self.beyond, *self.others]


def check(
    records: Records,
    executions: Sequence[Execution],
    windows: Sequence[Window],
    *,
    accepted: Iterable[str] = (),
    answered_by_hand: Collection[str] = (),
    has_one_clock: bool = True,
) -> Findings:
    """Compare the database, the effect ledger and the faults that there were.

    `accepted` are the ids of runs that a caller was promised, `answered_by_hand` names of tasks that need no execution.
    Without one clock for all, nothing can be said of what was executed too early.
    """
    found = Findings(
        lost=list(_lost(records, accepted)),
        recorded_twice=list(_recorded_twice(records)),
        stale=list(_stale(records)),
        beyond=list(_beyond(records, executions, windows)),
        runs=Counter(str(run["status"]) for run in records.runs.values()),
        executions=len(executions),
        repeated=len(executions) - len({(each.task) for each in executions}),
    )
    found.others += _without_execution(records, executions, but=answered_by_hand)
    if has_one_clock:
        found.others += _too_early(records, executions)
    found.others += _other_input(records, executions)
    for rule in (_other_data, _unfinished, _not_replayed, _without_reason, _contradictions):
        found.others += rule(records)
    return found


def _lost(records: Records, accepted: Iterable[str]) -> Iterator[str]:
    known = {run["id"]: run for run in records.runs.values()}
    for identifier in accepted:
        if identifier not in known:
            yield f"run {identifier} was accepted, and is nowhere"
    for run in records.runs.values():
        if run["status"] not in ENDED_RUN:
            yield f"run {run['number']} is {run['status']}: {_statuses(records, run)}"


def _statuses(records: Records, run: Row) -> list[str]:
    return [f"{task['name']} {task['status']}" for task in records.tasks_of(run["number"])]


def _recorded_twice(records: Records) -> Iterator[str]:
    successes = Counter(
        change["task_id"]
        for change in records.changes.values()
        if change["task_id"] is not None and change["to_status"] == TaskStatus.SUCCEEDED
    )
    for number, count in successes.items():
        if count > 1:
            yield f"task {number} was recorded as succeeded {count} times"
    for task in records.tasks.values():
        good = [each for each in records.attempts_of(task["number"]) if each["status"] == "succeeded"]
        if len(good) != (task["status"] == TaskStatus.SUCCEEDED):
            yield f"task {task['number']} is {task['status']} with {len(good)} succeeded attempts"


def _stale(records: Records) -> Iterator[str]:
    """A result says which attempt made it: it must be the one that is recorded as succeeded."""
    for task in records.tasks.values():
        said = _inline(task["result"])
        if not isinstance(said, dict) or "attempt" not in said:
            continue
        good = [each["attempt_no"] for each in records.attempts_of(task["number"]) if each["status"] == "succeeded"]
        if good != [said["attempt"]]:
            yield f"task {task['number']} has the result of attempt {said['attempt']}, and {good} as succeeded"


def _inline(value: Any) -> Any:
    return value.get("inline") if isinstance(value, dict) else None


def _beyond(records: Records, executions: Sequence[Execution], windows: Sequence[Window]) -> Iterator[str]:
    """A second execution needs a fault between the two, or a policy that asked for another attempt."""
    tasks = {task["id"]: task for task in records.tasks.values()}
    for identifier, own in _by_task(executions).items():
        task = tasks.get(identifier)
        if task is None:
            yield f"{own[0].name} was executed for a task that is nowhere, {identifier}"
            continue
        failed = {each["attempt_no"] for each in records.attempts_of(task["number"]) if each["status"] == "failed"}
        for before, after in itertools.pairwise(own):
            is_policy = before.attempt < after.attempt and before.attempt in failed
            if not is_policy and not any(window.touches(before.at, after.at) for window in windows):
                yield (
                    f"task {task['number']} was executed as attempt {before.attempt} at {before.at:.3f} and as attempt "
                    f"{after.attempt} at {after.at:.3f}, without a fault between"
                )


def _by_task(executions: Sequence[Execution]) -> dict[str, list[Execution]]:
    found: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        found[execution.task].append(execution)
    return found


def _without_execution(records: Records, executions: Sequence[Execution], *, but: Collection[str]) -> Iterator[str]:
    executed = {(each.task, each.attempt) for each in executions}
    for task in (task for task in records.tasks.values() if task["name"] not in but):
        for attempt in records.attempts_of(task["number"]):
            if attempt["status"] == "succeeded" and (task["id"], attempt["attempt_no"]) not in executed:
                yield f"task {task['number']} succeeded in attempt {attempt['attempt_no']}, which nobody executed"


def _too_early(records: Records, executions: Sequence[Execution]) -> Iterator[str]:
    by_task = _by_task(executions)
    for run in records.runs.values():
        tasks = records.tasks_of(run["number"])
        for before, after in itertools.pairwise(tasks):
            own = by_task.get(after["id"], [])
            recorded_at = before["finished_at"] or float("inf")
            if own and min(each.at for each in own) < recorded_at - _CLOCK_S:
                yield f"task {after['number']} was executed before task {before['number']} was recorded"


def _other_input(records: Records, executions: Sequence[Execution]) -> Iterator[str]:
    tasks = {task["number"]: task["id"] for task in records.tasks.values()}
    attempts = {(tasks[each["task_id"]], each["attempt_no"]): each for each in records.attempts.values()}
    for execution in executions:
        sent = attempts.get((execution.task, execution.attempt))
        if sent is None:
            yield f"{execution.name} was executed as an attempt that is nowhere, {execution.attempt}"
        elif execution.context != sent["context"]:
            yield f"{execution.name} got the context {execution.context}, recorded is {sent['context']}"
        elif execution.data is not None and {"inline": execution.data} != sent["data"]:
            yield f"{execution.name} got {execution.data}, recorded is {sent['data']}"


def _other_data(records: Records) -> Iterator[str]:
    """Each attempt was sent what the task before returned; publishers of these suites change no data."""
    for run in records.runs.values():
        before: Any = run["data"]
        for task in records.tasks_of(run["number"]):
            for attempt in records.attempts_of(task["number"]):
                if attempt["data"] != before:
                    yield f"task {task['number']} was sent {attempt['data']}, and {before} was recorded before it"
            before = task["result"]


def _unfinished(records: Records) -> Iterator[str]:
    ended = {number for number, run in records.runs.items() if run["status"] in ENDED_RUN}
    for attempt in records.attempts.values():
        task = records.tasks[attempt["task_id"]]
        if task["run_id"] in ended and attempt["status"] in {"published", "running"}:
            yield f"attempt {attempt['number']} is {attempt['status']} in run {task['run_id']}, which has ended"
    for task in records.tasks.values():
        if task["run_id"] in ended and task["status"] in {"published", "running"}:
            yield f"task {task['number']} is {task['status']} in run {task['run_id']}, which has ended"


def _not_replayed(records: Records) -> Iterator[str]:
    """The rows of the audit trail, one after another, lead from nothing to the state that there is."""
    last: dict[tuple[str, int], str] = {}
    for change in records.changes.values():
        of = ("task", change["task_id"]) if change["task_id"] is not None else ("run", change["run_id"])
        # An attempt that is lost is told at its task, which is pending from then on.
        before = last.get(of, "" if of[0] == "run" else TaskStatus.PENDING)
        if change["from_status"] != before and not (before == "lost" and change["from_status"] == "pending"):
            yield f"{of[0]} {of[1]} went from {change['from_status']!r}, having been {before!r}"
        last[of] = change["to_status"]
    for run in records.runs.values():
        if last.get(("run", run["number"])) != run["status"]:
            yield f"run {run['number']} is {run['status']}, its changes say {last.get(('run', run['number']))}"
    for task in records.tasks.values():
        said = last.get(("task", task["number"]), TaskStatus.PENDING)
        if said not in {task["status"], "lost"}:
            yield f"task {task['number']} is {task['status']}, its changes say {said}"


def _without_reason(records: Records) -> Iterator[str]:
    told = {
        change["run_id"]
        for change in records.changes.values()
        if change["reason"] or change["to_status"] == "cancelled"
    }
    for run in records.runs.values():
        if run["status"] not in {RunStatus.FAILED, RunStatus.CANCELLED}:
            continue
        errors = [task["error"] for task in records.tasks_of(run["number"]) if task["error"]]
        has_reason = run["number"] in told if run["status"] == RunStatus.CANCELLED else errors or run["error"]
        if not has_reason:
            yield f"run {run['number']} is {run['status']}, and nothing says why"


def _contradictions(records: Records) -> Iterator[str]:
    """A run's status follows from its tasks'."""
    for run in records.runs.values():
        statuses = {task["status"] for task in records.tasks_of(run["number"])}
        if (run["status"] == RunStatus.SUCCEEDED) != (statuses == {TaskStatus.SUCCEEDED}):
            yield f"run {run['number']} is {run['status']} with {_statuses(records, run)}"
