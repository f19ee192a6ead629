"""Shows runs in Prefect without its engine: it tells Prefect's API what the rows say, in batches, again and again."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

from shepherd.domain.status import ENDED_RUN
from shepherd.pipelines.models import Run, Task
from shepherd.pipelines.ownership import Owner
from shepherd.publisher import following, report
from shepherd.publisher.outcomes import Database

_T = TypeVar("_T")
RunAndTasks = tuple[Run, list[Task]]

#: Calls Prefect's API: method, path, body; returns what it answers.
Request = Callable[[str, str, Any], Awaitable[Any]]
#: Is told why Prefect could not be told of a run.
Refused = Callable[[int, Exception], Awaitable[None]]

#: Runs that one step tells of: half a second's work for Prefect, and while the relay is busy, a tenth.
_BATCH: Final = 20
_BATCH_WHEN_BUSY: Final = 2
#: Runs that are shown while they are under way. Those beyond are shown when they are over, or others are.
_LIVE_AT_ONCE: Final = 200
_EVENTS_A_CALL: Final = 200
#: When Prefect's recorder, which has task runs only in memory at first, has usually written them down, in seconds.
_RECORDED_AFTER_S: Final = 1.5


class Pace:
    """Whether the relay has its hands full: then Prefect, which needs the same processors, gets little to do."""

    #: So many tasks ended within so many seconds.
    _MANY: Final = 20
    _WITHIN_S: Final = 0.25
    _FOR_S: Final = 0.5

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=self._MANY)
        self._busy_until = 0.0

    @property
    def is_busy(self) -> bool:
        return time.monotonic() < self._busy_until

    def task_ended(self) -> None:
        now = time.monotonic()
        self._ends.append(now)
        if len(self._ends) == self._MANY and now - self._ends[0] < self._WITHIN_S:
            self._busy_until = now + self._FOR_S


@dataclass(slots=True)
class _Shown:
    """What Prefect has been told of one run."""

    flow_run_id: UUID
    #: Status and attempt of each task, by its number.
    tasks: dict[int, tuple[str, int]] = field(default_factory=dict)
    #: When it was told all; None while the run is under way.
    told_at: float | None = None


class Reporter:
    """Brings Prefect up to date with every run that no flow of ours drives. Lives on one loop.

    It may be cut off anywhere and repeat everything: Prefect makes one flow run for a run's key, and takes a task run's
    state for news once. A run is done when Prefect has written down all that it was told.
    """

    def __init__(
        self,
        database: Database,
        request: Request,
        refused: Refused,
        *,
        owner: Owner,
        calls_at_once: int = 1,
        patience_s: float = 15.0,
    ) -> None:
        self._database = database
        self._request = request
        self._refused = refused
        self._owner = owner
        self._calls = asyncio.Semaphore(calls_at_once)
        #: After which Prefect is told again what it hasn't written down.
        self._patience_s = patience_s
        self._flow_ids: dict[str, str] = {}
        self._shown: dict[int, _Shown] = {}
        self._told_again: set[int] = set()

    async def step(self, *, without: Collection[int], is_busy: bool) -> bool:
        """Tell of some runs, those that are over first; return whether there may be more at once."""
        await self._prove()
        proving = {number for number, shown in self._shown.items() if shown.told_at is not None}
        limit = _BATCH_WHEN_BUSY if is_busy else _BATCH
        over = await self._database.call(following.over, self._owner, without={*without, *proving}, limit=limit)
        if over:
            await self._tell(over)
        elif not is_busy:
            await self._tell_live(await self._database.call(following.live, limit=_LIVE_AT_ONCE))
        return len(over) == limit and not is_busy

    async def _tell_live(self, live: Sequence[RunAndTasks]) -> None:
        await self._tell([(run, tasks) for run, tasks in live if self._has_news(run, tasks)][:_BATCH])

    def _has_news(self, run: Run, tasks: list[Task]) -> bool:
        shown = self._shown.get(run.number)
        return shown is None or any(shown.tasks.get(task.number) != _moment(task) for task in _shown_tasks(tasks))

    async def _tell(self, batch: Sequence[RunAndTasks]) -> None:
        """Make or end the flow runs, one by one; then tell of all their task runs in one call."""
        # Not at the top: it takes a third of the time in which a Task Publisher starts, also where Prefect is off.
        import httpx

        async with asyncio.TaskGroup() as calls:
            showing = [calls.create_task(self._unless_refused(run, self._show(run, tasks))) for run, tasks in batch]
        pairs = [(run, tasks, each.result()) for (run, tasks), each in zip(batch, showing, strict=True)]
        told = [(run, tasks, shown) for run, tasks, shown in pairs if shown is not None]
        await self._database.call(following.made, {run.number: shown.flow_run_id for run, _, shown in told})
        try:
            await self._send([event for each in told for event in self._events(*each)])
        except httpx.HTTPStatusError:
            for run, tasks, shown in told:
                await self._unless_refused(run, self._send(self._events(run, tasks, shown)))
        for run, tasks, shown in told:
            shown.tasks = {task.number: _moment(task) for task in _shown_tasks(tasks)}
            shown.told_at = time.monotonic() if run.status in ENDED_RUN else None
            self._shown[run.number] = shown

    async def _unless_refused(self, run: Run, telling: Awaitable[_T]) -> _T | None:
        """Await a call; what Prefect refuses is said on the run; that it does not answer is raised."""
        import httpx

        try:
            async with self._calls:
                return await telling
        except httpx.HTTPStatusError as error:
            # Whoever removes flows or flow runs in Prefect gets them again.
            self._flow_ids.pop(report.flow_name(run.pipeline_name), None)
            self._shown.pop(run.number, None)
            await self._refused(run.number, error)
            return None

    async def _send(self, events: list[report.Document]) -> None:
        for start in range(0, len(events), _EVENTS_A_CALL):
            await self._request("POST", "/events", events[start : start + _EVENTS_A_CALL])

    async def _show(self, run: Run, tasks: list[Task]) -> _Shown:
        """Make a run's flow run in the state that it has to be in, or bring it there."""
        state, shown = report.run_state(run, tasks), self._shown.get(run.number)
        if shown is not None and state["type"] not in report.FINAL:
            return shown
        if shown is None:
            document = report.flow_run(run, flow_id=await self._flow_id(run), state=state)
            found = await self._request("POST", "/flow_runs/", document)
            shown = _Shown(UUID(found["id"]))
            if found["state_type"] == state["type"]:
                return shown
            if any(task.is_led for task in tasks):
                await bury(self._request, shown.flow_run_id)
        await self._request("POST", f"/flow_runs/{shown.flow_run_id}/set_state", report.change(state))
        return shown

    async def _flow_id(self, run: Run) -> str:
        name = report.flow_name(run.pipeline_name)
        if name not in self._flow_ids:
            self._flow_ids[name] = (await self._request("POST", "/flows/", {"name": name}))["id"]
        return self._flow_ids[name]

    def _events(self, run: Run, tasks: list[Task], shown: _Shown) -> list[report.Document]:
        return [
            report.task_run_event(run, task, after=before, flow_run_id=shown.flow_run_id)
            for before, task in zip([None, *tasks], tasks, strict=False)
            if report.is_shown(task) and shown.tasks.get(task.number) != _moment(task)
        ]

    async def _prove(self) -> None:
        """Call done what Prefect has written down; what it hasn't is forgotten, and so told once more."""
        now = time.monotonic()
        due = {n: each for n, each in self._shown.items() if each.told_at and now - each.told_at > _RECORDED_AFTER_S}
        if not due:
            return
        recorded = await self._request("POST", "/task_runs/count", report.ended_in(s.flow_run_id for s in due.values()))
        if recorded >= sum(len(each.tasks) for each in due.values()):
            done = set(due)
        else:
            late = {n for n, each in due.items() if each.told_at and now - each.told_at > self._patience_s}
            done = late & self._told_again
            self._told_again |= late
            self._forget(late - done)
        await self._database.call(following.followed, done)
        self._told_again -= done
        self._forget(done)

    def _forget(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self._shown[number]


async def bury(request: Request, flow_run_id: UUID, *, but: Collection[UUID] = ()) -> None:
    """Mark as Crashed what the engine of a dead process left running; `but` these, which a living one has made."""
    spared = {str(each) for each in but}
    for task_run in await request("POST", "/task_runs/filter", report.within([flow_run_id])):
        if task_run["state_type"] not in report.FINAL and task_run["id"] not in spared:
            await request("POST", f"/task_runs/{task_run['id']}/set_state", report.change(report.crashed()))


def _shown_tasks(tasks: list[Task]) -> list[Task]:
    return [task for task in tasks if report.is_shown(task)]


def _moment(task: Task) -> tuple[str, int]:
    """Return where a task is: another moment is news."""
    return task.status, task.attempt_no
