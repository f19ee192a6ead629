"""One run as its flow and its publishers see it: the objects that they are handed, and the way through the tasks."""

import asyncio
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shepherd.domain.status import TaskStatus
from shepherd.errors import TaskFailedError
from shepherd.pipelines.models import Run, Task
from shepherd.publisher.handle import Handle
from shepherd.publisher.outcomes import Database, Outcome, Outcomes
from shepherd.publisher.relay import Relay
from shepherd.store.port import Store
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline, Value, parse_value

#: The code with which a session says that its run was cancelled.
CANCELLED: Final = "cancelled"

#: What a publisher may raise to end more than itself.
_ENDS: Final = (SystemExit, KeyboardInterrupt, asyncio.CancelledError)

#: Executes a task's body: inside Prefect's engine, or plainly.
Step = Callable[["TaskObject", Callable[[], Awaitable[Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every session needs, once for all."""

    relay: Relay
    outcomes: Outcomes
    database: Database
    store: Store
    #: Calls a publisher, which may be `def` or `async def`, without blocking the loop.
    call_publisher: Callable[[Any, Mapping[str, Any], "Pipeline", "TaskObject"], Awaitable[Any]]


class Pipeline:
    """What a publisher gets as `pipeline`: the run, and the data on its way from task to task."""

    def __init__(self, run: Run, store: Store) -> None:
        self.number = run.number
        self.id = run.id
        self.pipeline_name = run.pipeline_name
        self.project = run.project
        self.data_url = run.data_url
        self._store = store
        self._data: Any = None
        #: Whether a publisher has put something else in place of what the last task returned.
        self.is_data_assigned = False

    @property
    def data(self) -> Any:
        """What the next task gets: a JSON value itself, anything else as a handle with `.uri` and `.load(as_=…)`."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data
        self.is_data_assigned = True

    def follow(self, value: Value) -> None:
        """Go on with what a task returned."""
        self._data = Handle.of(value, self._store)
        self.is_data_assigned = False


@dataclass(slots=True)
class TaskObject:
    """What a publisher gets as `task_obj`: hand it on to `publish_task_and_process_result`."""

    number: int
    id: Any
    name: str
    order_no: int
    context: dict[str, Any]
    is_led: bool
    #: The Prefect task of its name in the project's flow.py; None where the relay publishes it.
    publisher: Any
    _session: "Session" = field(repr=False)

    @property
    def store(self) -> Store:
        return self._session.store

    async def publish(self, context: Mapping[str, Any] | None, data: Any) -> Outcome:
        outcome = await self._session.publish(self, context, data)
        self._session.follow(outcome)
        return outcome

    def publish_from_thread(self, context: Mapping[str, Any] | None, data: Any) -> Outcome:
        return asyncio.run_coroutine_threadsafe(self.publish(context, data), self._session.loop).result()


class Session:
    """A run in the hands of its flow. Lives on one loop; may be driven again after a crash, from the start."""

    def __init__(
        self,
        run: Run,
        tasks: list[Task],
        services: Services,
        publishers: Mapping[str, Any],
        *,
        epoch: int | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = services.store
        self.pipeline = Pipeline(run, services.store)
        self.pipeline.follow(parse_value(run.data, path="data") if run.data else Inline(None))
        self.tasks = [
            TaskObject(
                task.number, task.id, task.name, task.order_no, task.effective_context, task.is_led, publisher, self
            )
            for task in tasks
            for publisher in [publishers.get(task.name) if task.is_led else None]
        ]
        self.is_led = any(task.is_led for task in tasks)
        self._services = services
        #: Of this Task Publisher as the run's owner; None where there is no other one to tell apart.
        self._epoch = epoch
        self._is_aside = False
        self._is_over = asyncio.Event()
        #: Who decides about the data between tasks; any other driver only watches.
        self._leader: object = None
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def drive(
        self, step: Step, waiting: Callable[[], AbstractAsyncContextManager[None]], *, leader: object
    ) -> None:
        """Take every task through `step`, in order; `waiting` is entered wherever others are waited for.

        A later call with another leader takes over: the earlier one goes on, but only watches.

        Raises:
            TaskFailedError: A task failed or was cancelled; what follows it was not begun.
        """
        self._leader = None if self._is_aside else leader
        for task, after in zip(self.tasks, [*self.tasks[1:], None], strict=True):
            await step(task, self._body(task, after, waiting, leader))

    def stand_aside(self) -> None:
        """Only watch from now on: another Task Publisher drives this run."""
        self._is_aside = True
        self._leader = None

    def give_up(self) -> None:
        """End now, whatever is waited for: the run has ended, and another session will drive what was resumed."""
        self.stand_aside()
        self._is_over.set()

    async def _ended(self, task: TaskObject) -> Outcome:
        """Return how a task ended.

        Raises:
            TaskFailedError: This session has been given up.
        """
        ended = asyncio.ensure_future(self._services.outcomes.ended(task.number))
        over = asyncio.ensure_future(self._is_over.wait())
        try:
            await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
        finally:
            ended.cancel()
            over.cancel()
        raise TaskFailedError("resumed", "the run was cancelled and resumed: its flow begins anew")

    def _body(
        self,
        task: TaskObject,
        after: "TaskObject | None",
        waiting: Callable[[], AbstractAsyncContextManager[None]],
        leader: object,
    ) -> Callable[[], Awaitable[Any]]:
        async def body() -> Any:
            async with waiting():
                if self._leader is leader:
                    await self._perform(task, after, leader)
                outcome = await self._ended(task)
            if outcome.status != TaskStatus.SUCCEEDED:
                raise _failure(task, outcome)
            return _shown(outcome.result)

        return body

    async def _perform(self, task: TaskObject, after: "TaskObject | None", leader: object) -> None:
        """Bring one task to its end, if it isn't there yet; then `pipeline.data` is what the next one gets."""
        outcome = await self._services.outcomes.look(task.number)
        if not outcome.is_over or await self._is_replay_due(outcome, after):
            if task.publisher is not None:
                await self._lead_once(task)
                return
            outcome = await self.publish(task, None, None)
        if self._leader is leader:
            self.follow(outcome)

    async def _lead_once(self, task: TaskObject) -> None:
        # One call a task, whoever waits for it: an engine that gives up must not make the publisher run twice.
        call = self._calls.get(task.number)
        if call is None:
            call = self._calls[task.number] = asyncio.ensure_future(self._lead(task))
        await asyncio.shield(call)

    async def _is_replay_due(self, outcome: Outcome, after: "TaskObject | None") -> bool:
        """Return whether code between this task and the next one still has to decide about the data."""
        if after is None or outcome.is_run_over or outcome.status != TaskStatus.SUCCEEDED:
            return False
        return (await self._services.outcomes.look(after.number)).is_unpublished

    async def _lead(self, task: TaskObject) -> None:
        """Call a publisher; what it does wrong ends the run, with the reason."""
        context = await self._services.database.insist(self._services.relay.context_of, task.number)
        if isinstance(context, TaskError):
            await self._fail(task, context.code, context.message)
            return
        task.context = dict(context)
        try:
            await self._services.call_publisher(task.publisher, context, self.pipeline, task)
        except (Exception, *_ENDS) as error:  # The edge to a project's own code.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            message = f"the publisher of {task.name!r} raised {type(error).__name__}: {error}"
            await self._fail(task, "publisher_failed", message, trace=traceback.format_exc())
            return
        outcome = await self._services.outcomes.look(task.number)
        if outcome.is_unpublished and not outcome.is_over:
            message = f"the publisher of {task.name!r} returned without publishing it"
            await self._fail(task, "not_published", message)

    async def publish(self, task: TaskObject, context: Mapping[str, Any] | None, data: Any) -> Outcome:
        """Publish a task unless that was done before, and wait for its end."""
        services, pipeline = self._services, self.pipeline
        outcome = await services.outcomes.look(task.number)
        if not outcome.is_over:
            value = await services.database.call(self._value, task, data)
            pipeline.is_data_assigned = False
            await services.database.insist(
                services.relay.publish, task.number, context=context, data=value, epoch=self._epoch
            )
            outcome = await self._ended(task)
        return outcome

    def follow(self, outcome: Outcome) -> None:
        """Go on with a task's result, unless a publisher has put something else in its place meanwhile."""
        if outcome.result is not None and not self.pipeline.is_data_assigned:
            self.pipeline.follow(outcome.result)

    def _value(self, task: TaskObject, data: Any) -> Value | None:
        """Return what travels for a publisher's data; None leaves the choice to the ledger."""
        if data is None and self.pipeline.is_data_assigned:
            data = self.pipeline.data
        if data is None:
            return None
        if isinstance(data, Handle):
            return data.value
        # Not at the top: a tenth of the time in which a Task Publisher starts, for what few publishers do.
        from shepherd.worker.desk import Desk, desk_prefix
        from shepherd.worker.result import encode

        prefix = desk_prefix(
            run_id=str(self.pipeline.id), order_no=task.order_no, task=task.name, attempt=0, execution="publisher"
        )
        with (
            tempfile.TemporaryDirectory() as scratch,
            Desk(self._services.store, prefix=prefix, scratch=Path(scratch)) as desk,
        ):
            return encode(data, desk)

    async def _fail(self, task: TaskObject, code: str, message: str, *, trace: str = "") -> None:
        error = TaskError(code=code, message=message, traceback=trace)
        await self._services.database.insist(
            self._services.relay.fail, self.pipeline.number, error, task_number=task.number, epoch=self._epoch
        )


def _is_cancelled() -> bool:
    """Tell whether somebody wants this coroutine to end; else a cancellation is what the publisher has raised."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _failure(task: TaskObject, outcome: Outcome) -> TaskFailedError:
    if outcome.status == TaskStatus.CANCELLED:
        return TaskFailedError(CANCELLED, f"{task.name} was cancelled")
    if outcome.error is None:
        return TaskFailedError("not_executed", f"{task.name} is {outcome.status}, and its run is over")
    error = outcome.error
    return TaskFailedError(error.code, f"{task.name}: {error.message}", traceback=error.traceback)


def _shown(value: Value | None) -> Any:
    """Return what Prefect shows of a result."""
    return value.to_wire() if value is not None else None
