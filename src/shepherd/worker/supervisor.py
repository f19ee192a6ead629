"""The worker's first process: holds the connection and the slots, and never imports the author's file."""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final
from urllib.parse import urlsplit

import shepherd
from shepherd.broker import connect
from shepherd.broker.port import Broker
from shepherd.errors import ConfigurationError
from shepherd.wire.beat import Beat
from shepherd.wire.fields import Fields
from shepherd.wire.manifest import Manifest, TaskOffer
from shepherd.worker.announcer import Announcer
from shepherd.worker.child import ChildSetup
from shepherd.worker.config import WorkerConfig
from shepherd.worker.console import configure_logging
from shepherd.worker.launch import Launch
from shepherd.worker.outbox import Outbox
from shepherd.worker.process import ChildProcess
from shepherd.worker.slot import Slot, Surroundings

logger = logging.getLogger("shepherd.worker")

_PATIENCE_S: Final = 3.0
#: How long the last log lines may take; replies were waited for by their slots.
_LAST_LINES_S: Final = 5.0


class Supervisor:
    """Slots, outbox and announcer of one worker, from the first signal of life to the last."""

    def __init__(self, launch: Launch, broker: Broker, *, scratch: str) -> None:
        self._launch = launch
        self._config = launch.config
        self._broker = broker
        self._scratch = scratch
        self._worker = worker_id(self._config)
        self._state = "serving"
        self._offers: tuple[TaskOffer, ...] = ()
        self._stopping = threading.Event()
        self._outbox = Outbox(broker, stopping=self._stopping)
        around = Surroundings(
            worker=self._worker,
            broker=broker,
            outbox=self._outbox,
            stopping=self._stopping,
            start_child=self._start_child,
            welcome=self._welcome,
        )
        self._slots = [Slot(number, around) for number in range(self._config.slots)]
        self._announcer = Announcer(broker, worker=self._worker, beat_s=self._config.beat_s, describe=self._describe)

    def run(self, signals: SimpleQueue[int]) -> int:
        """Serve until a signal comes, end in order, and return the exit status; a second signal ends at once."""
        self._start()
        signals.get()
        self._state = "draining"
        self._stopping.set()
        self._announcer.announce_soon()
        logger.info("worker.draining", extra={"running": sum(1 for slot in self._slots if slot.holding)})
        is_orderly = self._wait_for_slots(signals)
        self._outbox.close(wait_s=_LAST_LINES_S if is_orderly else 0.0)
        self._announcer.close()
        self._state = "stopped"
        self._announcer.announce()
        logger.info("worker.stopped")
        return 0 if is_orderly else 1

    def _start(self) -> None:
        config = self._config
        address = urlsplit(config.broker_url)
        where = {"broker": f"{address.hostname}:{address.port or 5672}", "store": config.store_url}
        logger.info("worker.starting", extra={"worker": self._worker, "slots": config.slots, **where})
        self._outbox.start()
        self._announcer.start()
        for slot in self._slots:
            slot.thread.start()
        if not self._broker.wait_connected(timeout_s=_PATIENCE_S):
            logger.warning("worker.waiting_for_broker", extra=where)

    def _wait_for_slots(self, signals: SimpleQueue[int]) -> bool:
        while any(slot.thread.is_alive() for slot in self._slots):
            try:
                signals.get(timeout=0.1)
            except Empty:
                continue
            logger.warning("worker.killed", extra={"running": sum(1 for slot in self._slots if slot.holding)})
            for slot in self._slots:
                slot.kill()
            return False
        return True

    def _start_child(self) -> ChildProcess:
        setup = ChildSetup(
            descriptor=-1, lifeline=-1, worker=self._worker, store_url=self._config.store_url, scratch=self._scratch
        )
        return ChildProcess(self._launch.command, setup, environ=os.environ)

    def _welcome(self, payload: bytes) -> tuple[TaskOffer, ...]:
        offers = tuple(_offer(Fields(document)) for document in json.loads(payload))
        if offers != self._offers:
            self._offers = offers
            logger.info("worker.serving", extra={"tasks": ",".join(offer.name for offer in offers)})
            self._announcer.announce_soon()
        return offers

    def _describe(self) -> tuple[Manifest, Beat] | None:
        if not self._offers:
            return None
        at = datetime.now(UTC)
        is_serving = self._state == "serving"
        free_slots = sum(1 for slot in self._slots if slot.is_free) if is_serving else 0
        holds = tuple(token for token in (slot.holding for slot in self._slots) if token)
        manifest = Manifest(
            worker=self._worker,
            at=at,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=shepherd.__version__,
            slots=self._config.slots,
            free_slots=free_slots,
            state=self._state,
            store=self._config.store_url,
            tasks=self._offers,
        )
        return manifest, Beat(worker=self._worker, at=at, free_slots=free_slots, holds=holds)


def worker_id(config: WorkerConfig) -> str:
    """Return a name that no other start of a worker has, as in `columns@node-3:4711:9f2c41`."""
    return f"{config.name}@{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(3)}"


def _offer(fields: Fields) -> TaskOffer:
    return TaskOffer(
        name=fields.text("name"),
        description=fields.text("description"),
        context_schema=fields.object("context_schema"),
        data=fields.text("data"),
    )


def main() -> int:
    # A queue, whose put may interrupt its own get: an event's lock could be held by the code that the signal stopped.
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.put(received))
    # A task passes through four threads on its way, each of which does little: at Python's own 5 ms they wait for each
    # other longer than they work (773 deliveries a second with four slots, 1,113 at 0.5 ms).
    sys.setswitchinterval(0.0005)
    configure_logging()
    try:
        launch = Launch.taken_from(os.environ)
        broker = connect(launch.config.broker_url, name=f"worker {launch.config.name}")
    except ConfigurationError as error:
        logger.error("worker.misconfigured", extra={"why": str(error)})  # noqa: TRY400  # the text says all
        return 2
    scratch = tempfile.mkdtemp(prefix="shepherd-")
    try:
        return Supervisor(launch, broker, scratch=scratch).run(signals)
    finally:
        broker.close()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
