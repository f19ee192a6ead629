"""Real worker processes, and the Task Publisher's side of the conversation with them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from shepherd.broker import connect
from shepherd.broker.port import Message
from shepherd.broker.topology import (
    ALL_WORKERS_KEY,
    BEATS,
    CONTROL_EXCHANGE,
    EXCHANGES,
    LOGS,
    REPLIES,
    STANDING_QUEUES,
    task_queue,
    task_queue_spec,
    worker_key,
)
from shepherd.wire.beat import Beat, parse_beat
from shepherd.wire.control import StoreMark, Withdrawals
from shepherd.wire.envelope import Finished, Reply, TaskEnvelope, parse_reply
from shepherd.wire.fields import parse_kind
from shepherd.wire.logs import LogLine, LogLines
from shepherd.wire.manifest import Manifest
from shepherd.wire.value import NOTHING, Value
from tests.support.waiting import wait_until

ReplyT = TypeVar("ReplyT", bound=Reply)

_SOURCE = Path(__file__).parents[2] / "src"


class WorkerProcess:
    """A worker's file in a process of its own."""

    def __init__(self, file: Path, *, environ: dict[str, str], arguments: Sequence[str] = ()) -> None:
        self._log = file.with_suffix(".log")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(file), *arguments], env=environ, cwd=file.parent, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[int]:
        pid = self.process.pid
        listed = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for file in listed for child in file.read_text().split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(20)


class Conversation:
    """A broker's other side: publishes tasks, and collects what workers say."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.folder = folder
        #: What workers are started with beside the usual.
        self.settings: dict[str, str] = {}
        self._workers: list[WorkerProcess] = []
        self._broker = connect(url, name="test")
        assert self._broker.wait_connected(timeout_s=30)
        self._broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        self._subscriptions = {name: self._broker.subscribe(name, prefetch=100) for name in (REPLIES, LOGS, BEATS)}
        self._heard: dict[str, deque[bytes]] = {name: deque() for name in self._subscriptions}
        #: What workers are told that they must not execute; None leaves them without an answer.
        self.withdrawn: set[str] | None = set()
        #: What workers are told of the store.
        self.mark: StoreMark | None = None
        self._is_closed = threading.Event()
        self._answering = threading.Thread(target=self._answer, name="conversation", daemon=True)
        self._answering.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._is_closed.set()
        self._answering.join(20)
        self._broker.close()

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHEPHERD_")}
        return inherited | {
            "PYTHONPATH": str(_SOURCE),
            "SHEPHERD_ENV_FILE": "",
            "SHEPHERD_BROKER_URL": self._url,
            "SHEPHERD_STORE": (self.folder / "store").as_uri(),
            "SHEPHERD_BEAT_S": "0.5",
            **self.settings,
        }

    def start(self, source: str, *arguments: str, file_name: str = "my_worker.py") -> WorkerProcess:
        file = self.folder / file_name
        file.write_text(textwrap.dedent(source))
        worker = WorkerProcess(file, environ=self.environ, arguments=arguments)
        self._workers.append(worker)
        return worker

    def declare(self, *names: str) -> None:
        self._broker.declare(queues=[task_queue_spec(name) for name in names])

    @contextmanager
    def without_replies(self) -> Iterator[None]:
        """Let the broker refuse every reply: the queue that takes them is gone."""
        self._broker.delete([REPLIES])
        try:
            yield
        finally:
            self._broker.declare(queues=STANDING_QUEUES)

    def waiting(self, name: str) -> int:
        """Return how many messages of a task wait in its queue; exact, unlike what the broker's statistics say."""
        (compared,) = self._broker.compare(queues=[task_queue_spec(name)])
        return compared.messages

    def publish(
        self,
        name: str,
        context: dict[str, Any] | None = None,
        *,
        data: Value = NOTHING,
        run_timeout_s: float | None = None,
        copies: int = 1,
    ) -> str:
        self.declare(name)
        token = uuid.uuid4().hex
        envelope = TaskEnvelope(
            token=token,
            attempt=1,
            task_id=str(uuid.uuid4()),
            name=name,
            order_no=1,
            run_id=str(uuid.uuid4()),
            run_number=7,
            pipeline_name="of a test",
            project="tests",
            context=context or {},
            data=data,
            published_at=datetime.now(UTC),
            run_timeout_s=run_timeout_s,
        )
        for _ in range(copies):
            self.publish_body(name, envelope.to_bytes(), token=token)
        return token

    def publish_body(self, name: str, body: bytes, *, token: str) -> None:
        message = Message(routing_key=task_queue(name), body=body, message_id=token, type="task")
        assert self._broker.publish([message]) == [None]

    def call(self, name: str, context: dict[str, Any] | None = None, *, data: Value = NOTHING) -> Finished:
        return self.finished(self.publish(name, context, data=data))

    def result(self, name: str, context: dict[str, Any] | None = None, *, data: Value = NOTHING) -> Value:
        reply = self.call(name, context, data=data)
        assert reply.error is None, reply.error
        assert reply.result is not None
        return reply.result

    def finished(self, token: str) -> Finished:
        return self.reply(token, Finished)

    def reply(self, token: str, kind: type[ReplyT]) -> ReplyT:
        """Return the first reply of this kind to an attempt."""

        def find() -> ReplyT | None:
            return next((reply for reply in self.replies(token) if isinstance(reply, kind)), None)

        found = wait_until(find, timeout_s=30, what=f"{kind.__name__} of {token}")
        assert found is not None
        return found

    def replies(self, token: str) -> list[Reply]:
        return [reply for reply in map(parse_reply, self._all(REPLIES)) if reply.token == token]

    def lines(self, token: str, *, count: int) -> list[LogLine]:
        def find() -> list[LogLine]:
            batches = (batch for batch in map(LogLines.parse, self._all(LOGS)) if batch.token == token)
            lines = [line for batch in batches for line in batch.lines]
            return lines if len(lines) >= count else []

        return wait_until(find, timeout_s=20, what=f"{count} lines of {token}")

    def beat(self, fits: Callable[[Beat], bool]) -> Beat:
        """Return the first beat from now on that fits."""
        before = len(self._heard[BEATS])

        def find() -> Beat | None:
            later = list(self._heard[BEATS])[before:]
            return next(filter(fits, (parse_beat(body) for body in later if parse_kind(body) == "beat")), None)

        found = wait_until(find, timeout_s=20, what="the beat")
        assert found is not None
        return found

    def withdraw(self, *tokens: str) -> None:
        """Tell all workers, as the Task Publisher does, and whoever asks later."""
        assert self.withdrawn is not None
        self.withdrawn |= set(tokens)
        self._tell(ALL_WORKERS_KEY, Withdrawals(tokens=tokens))

    def lose(self, *tokens: str) -> None:
        """Tell all workers that these were lost, and whoever asks later that they are withdrawn."""
        assert self.withdrawn is not None
        self.withdrawn |= set(tokens)
        self._tell(ALL_WORKERS_KEY, Withdrawals(tokens=(), lost=tokens))

    def manifest(self, fits: Callable[[Manifest], bool]) -> Manifest:
        def find() -> Manifest | None:
            heard = list(self._heard[BEATS])
            manifests = (Manifest.parse(body) for body in heard if parse_kind(body) == "manifest")
            return next(filter(fits, manifests), None)

        found = wait_until(find, timeout_s=20, what="the manifest")
        assert found is not None
        return found

    def _all(self, queue: str) -> list[bytes]:
        subscription = self._subscriptions[queue]
        while deliveries := subscription.take(at_most=100, wait_s=0.05):
            self._heard[queue].extend(delivery.body for delivery in deliveries)
            subscription.ack(deliveries)
        return list(self._heard[queue])

    def _answer(self) -> None:
        subscription = self._subscriptions[BEATS]
        while not self._is_closed.is_set():
            deliveries = subscription.take(at_most=100, wait_s=0.2)
            for delivery in deliveries:
                self._heard[BEATS].append(delivery.body)
                if parse_kind(delivery.body) == "manifest":
                    self._answer_manifest(Manifest.parse(delivery.body))
            subscription.ack(deliveries)

    def _answer_manifest(self, manifest: Manifest) -> None:
        if manifest.wants_withdrawals and self.withdrawn is not None:
            told = Withdrawals(tokens=tuple(self.withdrawn), is_complete=True, store=self.mark)
            self._tell(worker_key(manifest.worker), told)

    def _tell(self, key: str, message: Withdrawals) -> None:
        self._broker.publish(
            [
                Message(
                    exchange=CONTROL_EXCHANGE,
                    routing_key=key,
                    body=message.to_bytes(),
                    type="withdrawals",
                    is_mandatory=False,
                    is_persistent=False,
                )
            ]
        )
