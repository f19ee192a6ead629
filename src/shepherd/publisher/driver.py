"""The thread in which flows live: it starts them in order, without Prefect where it must, and shows all other runs."""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from shepherd.errors import TaskFailedError
from shepherd.pipelines.models import Run
from shepherd.pipelines.ownership import Owner
from shepherd.pipelines.starting import UndecidedError
from shepherd.publisher import following
from shepherd.publisher.engine import Engine
from shepherd.publisher.outcomes import Database, Outcomes
from shepherd.publisher.plain import call_publisher, plain_step, without_slot
from shepherd.publisher.publishers import BrokenFlowError, Publishers
from shepherd.publisher.relay import Relay
from shepherd.publisher.reporter import Pace, Reporter
from shepherd.publisher.session import Services, Session
from shepherd.store.port import Store
from shepherd.wire.envelope import TaskError

logger = logging.getLogger(__name__)

#: Flows that wait for their tasks hold memory; runs beyond these go on when others have ended.
_OPEN_AT_ONCE: Final = 500
_TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How a driver deals with Prefect."""

    is_prefect_on: bool
    #: How many flows may keep Prefect busy at once.
    slots: int
    #: How long a run that needs its publishers waits for Prefect.
    patience: timedelta = timedelta(seconds=10)
    #: How often it looks for runs that nobody told it of.
    look_every: timedelta = timedelta(seconds=1)


class Driver:
    """Drives and follows runs on one event loop, in one thread. Its public methods may be called from any thread."""

    def __init__(
        self, config: DriverConfig, relay: Relay, publishers: Publishers, store: Store, *, owner: Owner
    ) -> None:
        self._config = config
        self._owner = owner
        self._relay = relay
        self._publishers = publishers
        self._store = store
        self._thread = threading.Thread(target=self._serve, name="flows", daemon=True)
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work = Work()

    def start(self) -> None:
        self._thread.start()
        self._is_ready.wait()

    def stop(self) -> None:
        """Stand still, and leave every flow as it is: the next Task Publisher goes on with it.

        Nothing is cancelled, since Prefect would write a cancelled flow down as crashed.
        """
        if self._loop is not None:
            self._call(self._loop.stop)
            self._thread.join(timeout=10)
            self._owner.give_up()

    def task_ended(self, task_number: int) -> None:
        self._call(lambda: self._work.task_ended(task_number))

    def run_led(self, run_number: int) -> None:
        del run_number
        self._call(self._work.wake)

    def _call(self, function: Callable[[], Any]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _serve(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_unhandled)
        # Not awaited to its end, and not cancelled: see `stop`.
        self._main_task = self._loop.create_task(self._main())
        while True:
            try:
                self._loop.run_forever()
            except BaseException:
                # SystemExit out of an asyncio task that a publisher began: it ends its task, and would end this thread,
                # so that no run with a publisher ever went on.
                logger.exception("flows.loop_interrupted")
            else:
                return

    async def _main(self) -> None:
        database = Database()
        outcomes = Outcomes(database, look_every_s=self._config.look_every.total_seconds())
        services = Services(
            relay=self._relay, outcomes=outcomes, database=database, store=self._store, call_publisher=call_publisher
        )
        self._work.open(services, self._publishers, self._config, owner=self._owner)
        self._is_ready.set()
        try:
            await self._work.run()
        except Exception:
            # Nobody awaits this: it would be heard of nowhere.
            logger.exception("flows.loop_ended")
            raise


class Work:
    """What the loop does."""

    outcomes: Outcomes

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Task[None]] = {}
        self._epochs: dict[int, int] = {}
        self._sessions: dict[int, Session] = {}
        self._tries: dict[int, int] = {}
        self._pace = Pace()

    def open(self, services: Services, publishers: Publishers, config: DriverConfig, *, owner: Owner) -> None:
        self._owner = owner
        self.outcomes = services.outcomes
        self._services = services
        self._publishers = publishers
        self._config = config
        self._engine = Engine(slots=config.slots, patience=config.patience)
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    def task_ended(self, number: int) -> None:
        self._pace.task_ended()
        self.outcomes.tell(number)

    async def run(self) -> None:
        loops = [self.outcomes.watch(), self._feed(), self._keep_owning()]
        if self._config.is_prefect_on:
            loops.append(self._engine.serve(self._report))
        await asyncio.gather(*loops)

    async def _report(self, engine: Any) -> None:
        """Show the runs that no flow of ours drives."""
        database = self._services.database
        reporter = Reporter(
            database, engine.request, self._refused, owner=self._owner, calls_at_once=engine.calls_at_once
        )
        while True:
            is_more = False
            try:
                if self._engine.is_ready:
                    is_more = await reporter.step(without=set(self._open), is_busy=self._pace.is_busy)
            except Exception:
                logger.exception("prefect.report_failed")
            await asyncio.sleep(0 if is_more else self._config.look_every.total_seconds())

    async def _feed(self) -> None:
        while True:
            try:
                await self._start_due()
            except Exception:
                logger.exception("flows.look_failed")
            with_timeout = asyncio.wait_for(self._woken.wait(), self._config.look_every.total_seconds())
            await asyncio.gather(with_timeout, return_exceptions=True)
            self._woken.clear()

    async def _start_due(self) -> None:
        database = self._services.database
        for number in await database.call(self._owner.resumed, dict(self._epochs)) & self._sessions.keys():
            # Its context may be another one now: it is driven from the start, once this flow has ended.
            self._sessions[number].give_up()
        if self._engine.is_ready or not self._config.is_prefect_on or self._engine.is_silent:
            led = await database.call(following.led, self._owner, without=set(self._open), limit=_OPEN_AT_ONCE)
            for number, epoch in led.items():
                self._start(number, epoch)
        if self._engine.is_silent:
            await database.call(following.note, self._engine.silence)

    async def _keep_owning(self) -> None:
        """Stay the owner of what is driven here, and only watch what another Task Publisher has taken over."""
        while True:
            await asyncio.sleep(self._owner.lease.total_seconds() / 3)
            try:
                lost = await self._services.database.call(self._owner.renew, dict(self._epochs))
            except Exception:
                logger.exception("flows.not_renewed")
                continue
            for number in lost & self._sessions.keys():
                logger.warning("flow.taken_over", extra={"run": number})
                self._sessions[number].stand_aside()

    def _start(self, number: int, epoch: int) -> None:
        self._epochs[number] = epoch
        drive = self._open[number] = asyncio.ensure_future(self._drive(number, epoch))
        drive.add_done_callback(lambda _: self._ended(number))

    def _ended(self, number: int) -> None:
        for by_number in (self._open, self._epochs, self._sessions):
            by_number.pop(number, None)
        self._woken.set()

    async def _drive(self, number: int, epoch: int) -> None:
        try:
            project = await self._services.database.call(following.project_of, number)
            publishers = await self._publishers_of(number, project, epoch=epoch)
            run, tasks = await self._services.database.call(following.load, number)
            session = self._sessions[number] = Session(run, tasks, self._services, publishers, epoch=epoch)
            await self._lead(session, self._follow(session, run) if self._engine.is_ready else None)
        except Exception:
            # The run stays as it is, and is taken up again by a later look.
            logger.exception("flow.broken_off", extra={"run": number})
            await asyncio.sleep(self._config.look_every.total_seconds())

    async def _publishers_of(self, number: int, project: str, *, epoch: int) -> Any:
        while True:
            try:
                return await asyncio.to_thread(self._publishers.of, project)
            except UndecidedError as error:
                if str(error):
                    await self._services.database.call(following.note, str(error), run_number=number)
                await asyncio.sleep(self._config.look_every.total_seconds())
                continue
            except BrokenFlowError as error:
                message = f"the flow.py of {project!r} can't be imported: {error.reason}"
                fault = TaskError(code=error.code, message=message, traceback=str(error))
            # What a worker has been at for hours needs no flow.py to end, and that one may be mended meanwhile.
            in_hand = await self._services.database.call(following.task_in_hand, number)
            if in_hand is None:
                await self._services.database.call(self._services.relay.fail, number, fault, epoch=epoch)
                return {}
            await self.outcomes.ended(in_hand)

    async def _lead(self, session: Session, follow: Any) -> None:
        """Drive a run to its end: inside Prefect as long as that answers, else without."""
        following_task = asyncio.ensure_future(follow) if follow is not None else None
        while following_task is not None and not following_task.done() and not self._engine.is_silent:
            await asyncio.wait([following_task], timeout=self._config.look_every.total_seconds() / 2)
        # An engine that only hangs goes on beside this, and watches: when Prefect is back, it shows what happened.
        try:
            await session.drive(plain_step, without_slot, leader=object())
        except TaskFailedError:
            logger.info("run.failed", extra={"run": session.pipeline.number})
        if following_task is not None:
            await following_task

    async def _follow(self, session: Session, run: Run) -> None:
        """Show a run in Prefect. Whatever Prefect does wrong is said on the run, and changes nothing else."""
        try:
            await self._engine.prefect.follow(session, run, functools.partial(self._made, run.number))
        except TaskFailedError:
            pass
        except Exception as error:  # noqa: BLE001  # The edge to Prefect.
            await self._refused(run.number, error)
            return
        self._tries.pop(run.number, None)
        await self._services.database.call(following.followed, [run.number])

    async def _made(self, number: int, flow_run_id: UUID) -> None:
        await self._services.database.call(following.made, {number: flow_run_id})

    async def _refused(self, number: int, error: Exception) -> None:
        logger.warning("prefect.refused", extra={"run": number, "reason": repr(error)})
        if self._engine.is_silent or not self._engine.is_ready:
            return
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        reason = f"Prefect did not follow: {type(error).__name__}: {error}"
        database = self._services.database
        if tries < _TRIES:
            await database.call(following.note, reason, run_number=number)
        else:
            del self._tries[number]
            await database.call(following.given_up, number, reason)


def _log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # At the end of the process pending flows are dropped on purpose; asyncio would call each of them an error.
    logger.debug("flows.unhandled", extra={"reason": context.get("message")}, exc_info=context.get("exception"))
