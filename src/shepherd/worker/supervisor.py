"""The worker's first process: holds the connection and the slots, and never imports the author's file."""

import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import shepherd
from shepherd.broker import connect
from shepherd.broker.addresses import hosts_of
from shepherd.broker.port import Broker
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, worker_key
from shepherd.errors import ConfigurationError
from shepherd.store import open_store
from shepherd.wire.beat import Beat
from shepherd.wire.control import Withdrawals
from shepherd.wire.fields import Fields
from shepherd.wire.manifest import Manifest, TaskOffer
from shepherd.worker.announcer import Announcer
from shepherd.worker.attempt import Cause, Hands
from shepherd.worker.child import ChildSetup
from shepherd.worker.config import WorkerConfig
from shepherd.worker.console import configure_logging
from shepherd.worker.family import Family, become_subreaper
from shepherd.worker.launch import Launch
from shepherd.worker.outbox import LAST_WORDS_S, Outbox
from shepherd.worker.process import ChildProcess, wait_until
from shepherd.worker.replies import Replies
from shepherd.worker.scratch import scratch_folder
from shepherd.worker.sight import Sight
from shepherd.worker.slot import Slot
from shepherd.worker.spool import Spool
from shepherd.worker.surroundings import Surroundings
from shepherd.worker.withdrawn import WithdrawnList

logger = logging.getLogger("shepherd.worker")

_PATIENCE_S: Final = 3.0
#: How long the last log lines may take; replies were waited for by their slots.
_LAST_LINES_S: Final = 5.0
#: How long the slots may take to give up what they execute.
_GIVE_UP_S: Final = 10.0


class Supervisor:
    """Slots, outbox and announcer of one worker, from the first signal of life to the last."""

    def __init__(self, launch: Launch, broker: Broker, *, scratch: Path) -> None:
        self._launch = launch
        self._config = launch.config
        self._broker = broker
        self._scratch = scratch
        self._worker = worker_id(self._config)
        self._state = "serving"
        self._offers: tuple[TaskOffer, ...] = ()
        self._stopping = threading.Event()
        self._family = Family()
        self._hands = Hands()
        self._outbox = Outbox(broker, stopping=self._stopping)
        self._spool = Spool(Path(self._config.spool), name=self._config.name, limit=self._config.spool_limit)
        self._replies = Replies(self._outbox, self._spool, self._hands)
        control = broker.listen(CONTROL_EXCHANGE, binding_keys=[ALL_WORKERS_KEY, worker_key(self._worker)])
        self._withdrawn = WithdrawnList(control)
        self._sight = Sight(open_store(self._config.store_url), beat_s=self._config.beat_s)
        around = Surroundings(
            worker=self._worker,
            broker=broker,
            outbox=self._outbox,
            replies=self._replies,
            hands=self._hands,
            withdrawn=self._withdrawn,
            sight=self._sight,
            stopping=self._stopping,
            hold_s=self._config.hold_s,
            start_child=self._start_child,
            welcome=self._welcome,
        )
        self._slots = [Slot(number, around) for number in range(self._config.slots)]
        self._announcer = Announcer(
            broker, control, beat_s=self._config.beat_s, describe=self._describe, withdraw=self._withdraw
        )

    def run(self, signals: SimpleQueue[int]) -> int:
        """Serve until a signal comes, end in order, and return the exit status; a second signal ends at once."""
        self._start()
        signals.get()
        self._state = "draining"
        self._stopping.set()
        self._announcer.announce_soon()
        logger.info("worker.draining", extra={"running": self._running()})
        is_orderly = self._wait_for_slots(signals)
        # What isn't confirmed by then stays in the spool.
        self._outbox.close(wait_s=LAST_WORDS_S if is_orderly and self._hands.tokens else _LAST_LINES_S)
        self._announcer.close()
        self._state = "stopped"
        self._announcer.announce()
        self._spool.close()
        self._family.end()
        logger.info("worker.stopped", extra={"unsent": len(self._hands.tokens)})
        return 0 if is_orderly else 1

    def _start(self) -> None:
        config = self._config
        where = {"broker": ", ".join(hosts_of(config.broker_url)), "store": config.store_url}
        logger.info("worker.starting", extra={"worker": self._worker, "slots": config.slots, **where})
        self._outbox.start()
        self._replies.look_after()
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
            logger.warning("worker.killed", extra={"running": self._running()})
            self._hands.end_all(Cause.GIVEN_UP)
            deadline = time.monotonic() + _GIVE_UP_S
            for slot in self._slots:
                slot.thread.join(wait_until(deadline))
            return False
        return True

    def _running(self) -> int:
        return sum(1 for slot in self._slots if slot.is_busy)

    def _start_child(self) -> ChildProcess:
        setup = ChildSetup(
            descriptor=-1,
            lifeline=-1,
            worker=self._worker,
            store_url=self._config.store_url,
            # One for each child, to be removed with it: one that is killed removes nothing itself.
            scratch=str(self._scratch / secrets.token_hex(8)),
            secrets=self._config.secrets,
        )
        return ChildProcess(self._launch.command, setup, environ=os.environ, family=self._family)

    def _welcome(self, payload: bytes) -> tuple[TaskOffer, ...]:
        offers = tuple(_offer(Fields(document)) for document in json.loads(payload))
        if offers != self._offers:
            self._offers = offers
            logger.info("worker.serving", extra={"tasks": ",".join(offer.name for offer in offers)})
            self._announcer.announce_soon()
        return offers

    def _withdraw(self, told: Withdrawals, generation: int | None) -> None:
        # In this order: a slot that has the list waits for what is found out of the store.
        self._sight.hear(told.store)
        # In this order: a slot holds an attempt before it looks at the list.
        self._withdrawn.hear(told, generation=generation)
        self._hands.end(told.tokens, Cause.WITHDRAWN)

    def _describe(self) -> tuple[Manifest, Beat] | None:
        if not self._offers:
            return None
        at = datetime.now(UTC)
        is_serving = self._state == "serving"
        free_slots = sum(1 for slot in self._slots if slot.is_free) if is_serving else 0
        idle_s = max(slot.idle_s for slot in self._slots) if is_serving else 0.0
        self._replies.look_after()
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
            wants_withdrawals=is_serving and not self._withdrawn.is_known,
        )
        beat = Beat(worker=self._worker, at=at, free_slots=free_slots, holds=self._hands.tokens, idle_s=idle_s)
        return manifest, beat


def worker_id(config: WorkerConfig) -> str:
    """Return a name that no other start of a worker has, as in `columns@node-3:4711:9f2c41`."""
    return f"{config.name}@{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(3)}"


def _offer(fields: Fields) -> TaskOffer:
    return TaskOffer(
        name=fields.text("name"),
        description=fields.text("description"),
        context_schema=fields.object("context_schema"),
        data=fields.text("data"),
        policy=fields.object("policy", {}),
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
    become_subreaper()
    try:
        launch = Launch.taken_from(os.environ)
        broker = connect(launch.config.broker_url, name=f"worker {launch.config.name}")
    except ConfigurationError as error:
        logger.error("worker.misconfigured", extra={"why": str(error)})  # noqa: TRY400  # the text says all
        return 2
    try:
        with scratch_folder(Path(tempfile.gettempdir())) as scratch:
            return Supervisor(launch, broker, scratch=scratch).run(signals)
    finally:
        broker.close()


if __name__ == "__main__":
    sys.exit(main())
