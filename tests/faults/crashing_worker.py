"""A worker that kills its supervisor at one point of its first claim: FAULTS_CRASH="before ack" is before its ack.

The points are made by wrapping the broker that the supervisor is given; the product has no switch for it.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shepherd.broker.port import Delivery, Message
from shepherd.worker import launch, supervisor
from shepherd.worker.config import WorkerConfig

_TASKS = Path(__file__).parent / "projects" / "plain" / "workers" / "_plain.py"


def at(point: str) -> None:
    if os.environ["FAULTS_CRASH"] == point:
        os.kill(os.getpid(), signal.SIGKILL)
        # The signal may arrive a moment later than this returns.
        threading.Event().wait()


class CrashingBroker:
    """Passes on everything that it doesn't define."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def intake(self, queues: Sequence[str]) -> Any:
        return CrashingIntake(self._inner.intake(queues))

    def publish(self, messages: Sequence[Message], **options: Any) -> Any:
        if not any(message.type == "claimed" for message in messages):
            return self._inner.publish(messages, **options)
        at("before claim")
        sending = threading.Thread(target=lambda: answers.extend(self._inner.publish(messages, **options)))
        answers: list[Any] = []
        sending.start()
        at("claim on its way")
        sending.join()
        at("after confirm")
        return answers


class CrashingIntake:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._is_holding = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def take(self, **options: Any) -> Any:
        delivery = self._inner.take(**options)
        self._is_holding |= delivery is not None
        return delivery

    def offer_to(self, taker: Callable[[Delivery], bool]) -> None:
        def take(delivery: Delivery) -> bool:
            is_taken = taker(delivery)
            self._is_holding |= is_taken
            return is_taken

        self._inner.offer_to(take)

    def pause(self) -> None:
        self._inner.pause()
        if self._is_holding:
            at("after cancel-ok")

    def ack(self, delivery: Any, **options: Any) -> None:
        at("before ack")
        self._inner.ack(delivery, **options)
        self._is_holding = False
        at("after ack")


def main() -> int:
    config = WorkerConfig.read(sys.argv[1:], os.environ, default_name="crashing", tasks=[])
    handed = {
        "config": config.to_text(),
        "command": [sys.executable, str(_TASKS)],
        "python_path": os.environ.get("PYTHONPATH"),
    }
    os.environ[launch.VARIABLE] = json.dumps(handed)
    connect = vars(supervisor)["connect"]
    vars(supervisor)["connect"] = lambda *given, **named: CrashingBroker(connect(*given, **named))
    return supervisor.main()


if __name__ == "__main__":
    sys.exit(main())
