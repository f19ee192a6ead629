"""The Task Publisher's process: it puts the parts together, starts their loops, and stops them in order."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from django.conf import settings

from shepherd.broker import connect
from shepherd.broker.topology import BEATS, CONTROL_EXCHANGE, DEAD_QUEUE, LOGS, PUBLISHER_KEY, REPLIES
from shepherd.pipelines import sql, starting, unconfirmed
from shepherd.pipelines.data_urls import DataSources
from shepherd.pipelines.intents import Intent
from shepherd.pipelines.ownership import Owner
from shepherd.publisher import dead_letters, hearing
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.draft import Limits
from shepherd.publisher.driver import Driver, DriverConfig
from shepherd.publisher.ears import Ears
from shepherd.publisher.fetcher import Fetcher
from shepherd.publisher.fetching import Fetching
from shepherd.publisher.lock import take_lock
from shepherd.publisher.loops import Loop
from shepherd.publisher.marking import Marking
from shepherd.publisher.pace import Pace
from shepherd.publisher.publishers import Publishers
from shepherd.publisher.relay import Relay
from shepherd.publisher.standing import Topology
from shepherd.publisher.watch import Watch
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.store import open_store

logger = logging.getLogger(__name__)

#: Wakes that one sweep answers at most.
_WAKES_AT_ONCE: Final = 100
#: Between two looks whether the store is there, or whether the mark in it is to be renewed.
_STORE_LOOK_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherConfig:
    """What the Task Publisher is told from outside."""

    broker_url: str
    store_url: str
    projects_folder: Path
    data_sources: DataSources
    data_limits: Limits
    sweep: timedelta
    owner: Owner
    lease: timedelta
    driver: DriverConfig


def main() -> None:
    """Run the Task Publisher until SIGTERM or SIGINT.

    Raises:
        SystemExit: With the reason, where another one has the SQLite database.
    """
    lock = take_lock()
    if isinstance(lock, str):
        sys.exit(lock)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Its threads hand much to each other and do little at a time: see the worker's supervisor.
    sys.setswitchinterval(0.0005)
    daemon = Daemon(config_from_settings(is_alone=lock is not None))
    daemon.start()
    logger.info("publisher.started", extra={"pid": os.getpid()})
    stop.wait()
    daemon.stop()
    logger.info("publisher.stopped")


def config_from_settings(*, is_alone: bool) -> PublisherConfig:
    """Return the settings; `is_alone` says that no other Task Publisher can have this database."""
    server = settings.SHEPHERD
    name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(3)}"
    return PublisherConfig(
        broker_url=server.broker_url,
        store_url=server.store_url,
        projects_folder=server.projects_folder,
        data_sources=server.data_sources,
        data_limits=Limits(size=server.data_url_size, time_s=server.data_url_time.total_seconds()),
        sweep=server.sweep,
        # Half of it, so that a flow goes on before anybody takes its task for lost.
        owner=Owner(name=name, lease=server.lease / 2, is_alone=is_alone),
        lease=server.lease,
        driver=DriverConfig(is_prefect_on=server.is_prefect_on, slots=server.prefect_slots or 4),
    )


class Daemon:
    """All parts of a Task Publisher, alive between `start` and `stop`."""

    def __init__(self, config: PublisherConfig) -> None:
        self._config = config
        self._broker = connect(config.broker_url, name="task publisher")
        self._woken = threading.Event()
        self._woken.set()
        publishers = Publishers(config.projects_folder, on_imported=self._woken.set)
        store = open_store(config.store_url)
        self._dispatch = Dispatch(self._broker)
        self._pace = Pace()
        self._marking = Marking(store, clock=lambda: datetime.now(UTC))
        self._withdrawing = Withdrawing(self._broker, mark=lambda: self._marking.mark)
        self._relay = Relay(
            self._broker,
            self,
            leads=publishers.names,
            is_followed=config.driver.is_prefect_on,
            send=self._send,
        )
        self._driver = Driver(config.driver, self._relay, publishers, store, owner=config.owner)
        self._fetching = Fetching(self._relay, Fetcher(store, config.data_sources, config.data_limits))
        self._replies = self._broker.subscribe(REPLIES, prefetch=hearing.REPLIES_AT_ONCE)
        self._beats = self._broker.subscribe(BEATS, prefetch=hearing.AT_ONCE)
        self._logs = self._broker.subscribe(LOGS, prefetch=hearing.AT_ONCE)
        self._dead = self._broker.subscribe(DEAD_QUEUE, prefetch=dead_letters.AT_ONCE)
        self._control = self._broker.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])
        self._topology = Topology(self._broker)
        self._ears = Ears(REPLIES, BEATS, lease=config.lease)
        self._watch = Watch(self._broker, self._relay, self._ears, database_time=sql.database_time)
        self._stopped = threading.Event()
        self._loops = [Loop(step.__name__.strip("_"), step) for step in self._steps()]

    def _steps(self) -> list[Callable[[], None]]:
        return [
            self._sweep,
            self._watch_over,
            self._hear_replies,
            self._dispatch.send,
            self._hear_beats,
            self._hear_logs,
            self._take_dead_letters,
            self._hear_wakes,
            self._mark_store,
        ]

    def start(self) -> None:
        self._driver.start()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Finish what has begun and leave the rest to the next Task Publisher."""
        for loop in self._loops:
            loop.stop()
        self._stopped.set()
        self._woken.set()
        for loop in self._loops:
            loop.join(timeout_s=15)
        self._dispatch.confirm()
        self._driver.stop()
        self._fetching.stop()
        self._marking.remove()
        self._broker.close()

    def _send(self, intents: Sequence[Intent]) -> None:
        self._pace.published(len(intents))
        self._dispatch.post(intents)

    def task_ended(self, task_number: int) -> None:
        self._driver.task_ended(task_number)

    def run_led(self, run_number: int) -> None:
        self._driver.run_led(run_number)

    def fetch_due(self, run_number: int, data_url: str) -> None:
        self._fetching.submit({run_number: data_url})

    def attempts_withdrawn(self) -> None:
        self._woken.set()

    def _sweep(self) -> None:
        """Look for all that nobody told, each second or when woken."""
        self._woken.wait(self._config.sweep.total_seconds())
        self._woken.clear()
        # Its consumer doesn't stand as long as its queue is missing.
        if self._topology.ensure(is_in_need=self._replies.generation is None):
            self._dispatch.look(unconfirmed.unfinished_names())
        self._withdrawing.tell_new()
        self._relay.start()
        self._dispatch.confirm()
        self._relay.resend()
        self._fetching.submit(starting.unfetched())
        for name, missing_at in self._dispatch.take_lost().items():
            self._relay.resend_lost([name], missing_at=missing_at)

    def _watch_over(self) -> None:
        self._stopped.wait(self._config.sweep.total_seconds())
        self._watch.look()

    def _mark_store(self) -> None:
        # In a loop of its own: a store may take minutes to say that it doesn't answer.
        if self._marking.renew():
            self._withdrawing.tell_store()
        self._stopped.wait(_STORE_LOOK_S)

    def _hear_replies(self) -> None:
        began_at, generation = self._ears.now(), self._replies.generation
        self._pace.heard(hearing.hear_replies(self._replies, self._relay, gather_s=self._pace.gather_s))
        self._ears.turned(REPLIES, began_at=began_at, generation=generation)

    def _hear_beats(self) -> None:
        began_at, generation = self._ears.now(), self._beats.generation
        hearing.hear_beats(self._beats, self._dispatch, self._withdrawing)
        self._ears.turned(BEATS, began_at=began_at, generation=generation)

    def _hear_logs(self) -> None:
        hearing.hear_logs(self._logs)

    def _take_dead_letters(self) -> None:
        dead_letters.take_dead_letters(self._dead, self._relay)

    def _hear_wakes(self) -> None:
        deliveries = self._control.take(at_most=_WAKES_AT_ONCE, wait_s=1.0)
        if deliveries:
            self._woken.set()
            self._control.ack(deliveries)
