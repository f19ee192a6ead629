"""Runs with publishers as flows in Prefect's engine, and the client to Prefect's API.

The only module that imports Prefect, and the only one that may: see docs/decisions. Prefect follows and never delays:
what a run's end is, is computed from task rows. Where a publisher leads, and Prefect's API doesn't answer, the driver
calls the publisher without Prefect's engine.
"""

import asyncio
import contextvars
import copy
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import AsyncClientContext
from prefect.exceptions import CancelledRun
from prefect.flow_engine import run_flow_async
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled
from prefect.task_engine import run_task_async

from shepherd.errors import TaskFailedError
from shepherd.pipelines.models import Run
from shepherd.publisher import report
from shepherd.publisher.lane import Lane
from shepherd.publisher.reporter import Request, bury
from shepherd.publisher.session import CANCELLED, Session, TaskObject
from shepherd.publisher.slots import Slot, Slots

#: 4 slots, for Prefect on SQLite, make one call at a time; 16, for PostgreSQL, four.
_SLOTS_A_CALL: Final = 4
#: How long one look at Prefect's health may take, and how often it is taken, in seconds.
_HEALTH_EVERY_S: Final = 2.0

#: With the slot that the flow has, and the ids of the task runs that it has made.
_session: contextvars.ContextVar[tuple[Session, "Slot", set[UUID]]] = contextvars.ContextVar("session")


@flow(persist_result=False, validate_parameters=False)
async def _pipeline(run: int) -> State[Any] | None:  # noqa: ARG001  # Shown by Prefect as the flow run's parameter.
    session, slot, _ = _session.get()
    try:
        await session.drive(_step, slot.released, leader=slot)
    except TaskFailedError as error:
        return _cancelled(error)
    return None


def _cancelled(error: TaskFailedError) -> State[Any]:
    """Return the state that shows a cancellation; anything else is raised again."""
    if error.code != CANCELLED:
        raise error
    return Cancelled(message=str(error))


@task(persist_result=False, cache_policy=NO_CACHE)
async def _relayed() -> None: ...


async def _step(task_object: TaskObject, body: Callable[[], Awaitable[Any]]) -> Any:
    """Execute a task's body as a `prefect.task` run of its name."""
    cancellations: list[TaskFailedError] = []

    async def shown() -> Any:
        try:
            return await body()
        except TaskFailedError as error:
            state = _cancelled(error)
            cancellations.append(error)
            return state

    followed = copy.copy(task_object.publisher or _relayed)
    followed.fn, followed.isasync, followed.isgenerator = shown, True, False
    followed.name = followed.task_run_name = task_object.name
    followed.persist_result, followed.cache_policy = False, NO_CACHE
    # No retry here: a publisher that raised has ended its run, and a task's own policy retries its attempts.
    followed.retries = 0
    task_run_id = uuid4()
    _session.get()[2].add(task_run_id)
    returned = await run_task_async(followed, task_run_id=task_run_id, parameters={})
    # Prefect's engine returns a cancelled state as any other result; what follows must not begin.
    for error in cancellations:
        raise error
    return returned


@functools.lru_cache(maxsize=256)
def _named(name: str) -> Flow[Any, Any]:
    return _pipeline.with_options(name=name)


#: Is told which flow run shows the run.
Made = Callable[[UUID], Awaitable[None]]


class Health:
    """Whether Prefect's API answers."""

    def __init__(self, api_url: str, *, patience: timedelta) -> None:
        self._api_url = api_url.rstrip("/")
        self._patience_s = patience.total_seconds()
        self._answered_at = time.monotonic()
        self.has_answered = False

    @property
    def is_silent(self) -> bool:
        """True once it hasn't answered for as long as a run may wait for it."""
        return time.monotonic() - self._answered_at > self._patience_s

    async def watch(self) -> None:
        async with httpx.AsyncClient(timeout=_HEALTH_EVERY_S) as client:
            while True:
                await self._look(client)
                await asyncio.sleep(min(_HEALTH_EVERY_S, self._patience_s / 4))

    async def _look(self, client: httpx.AsyncClient) -> None:
        try:
            response = await client.get(f"{self._api_url}/health")
            self.has_answered = response.is_success
        except httpx.HTTPError:
            self.has_answered = False
        if self.has_answered:
            self._answered_at = time.monotonic()


class PrefectEngine:
    """Drives sessions as Prefect flow runs, over one client that stays open."""

    def __init__(self, *, slots: int, patience: timedelta) -> None:
        self.health = Health(PREFECT_API_URL.value() or "", patience=patience)
        self._slots = Slots(slots)
        self.calls_at_once = max(1, slots // _SLOTS_A_CALL)
        self._client: PrefectClient | None = None
        self._stack = AsyncExitStack()
        self._context: contextvars.Context | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> PrefectClient:
        """Return the client; opened at the first call that finds Prefect's API answering."""
        async with self._opening:
            if self._client is None:
                lane = Lane(calls_at_once=self.calls_at_once)
                entered = await self._stack.enter_async_context(AsyncClientContext({"transport": lane}))
                self._client = entered.client
                self._context = contextvars.copy_context()
            return self._client

    async def request(self, method: Any, path: Any, document: Any) -> Any:
        """Call Prefect's API and return its answer; whoever leads comes first."""
        client = await self.open()
        async with Slot(self._slots, is_urgent=False):
            return await _answer(client, method, path, document)

    async def follow(self, session: Session, run: Run, made: Made) -> None:
        """Drive a session inside its flow run, which is made unless there is one.

        Raises:
            TaskFailedError: The run's own failure, which Prefect shows.
            Exception: Prefect's or its client's. The run goes on without it.
        """
        client = await self.open()
        assert self._context is not None
        # Each flow in a copy of the context that holds the client: a coroutine elsewhere would open its own, at 70 ms.
        following = self._follow(client, session, run, made)
        await asyncio.get_running_loop().create_task(following, context=self._context.copy())

    async def _follow(self, client: PrefectClient, session: Session, run: Run, made: Made) -> None:
        named = _named(report.flow_name(run.pipeline_name))
        request = functools.partial(_answer, client)
        async with Slot(self._slots, is_urgent=True) as slot:
            flow_run = await self._flow_run(request, run)
            await made(flow_run.id)
            if run.prefect_state == "open":
                await bury(request, flow_run.id)
            if flow_run.state is not None and flow_run.state.is_final():
                # A run that was resumed after it had ended: it goes on in the flow run that shows its beginning.
                await request("POST", f"/flow_runs/{flow_run.id}/set_state", report.change(report.pending()))
            own = set[UUID]()
            _session.set((session, slot, own))
            try:
                await run_flow_async(named, flow_run=flow_run, parameters={"run": run.number})
            except CancelledRun as error:
                raise TaskFailedError(CANCELLED, str(error)) from None
            finally:
                if run.prefect_state == "open":
                    # What a dead process began just before its end, Prefect may have recorded only since.
                    with suppress(httpx.HTTPError):
                        await bury(request, flow_run.id, but=own)

    async def _flow_run(self, request: Request, run: Run) -> FlowRun:
        flow = await request("POST", "/flows/", {"name": report.flow_name(run.pipeline_name)})
        document = report.flow_run(run, flow_id=flow["id"], state=report.pending())
        return FlowRun.model_validate(await request("POST", "/flow_runs/", document))


async def _answer(client: PrefectClient, method: Any, path: Any, document: Any) -> Any:
    response = await client.request(method, path, json=document)
    return response.json() if response.content else None
