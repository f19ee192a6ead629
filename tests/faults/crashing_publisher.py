"""A Task Publisher that kills itself at one point: FAULTS_CRASH="after commit:3" is after its third commit.

The points are made by wrapping what the Task Publisher is given, its broker and its database's connection; the product
has no switch for it.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import django


class Points:
    """Counts how often each point was passed, and ends the process at the chosen one."""

    def __init__(self, chosen: str) -> None:
        name, _, number = chosen.partition(":")
        self._name, self._number = name, int(number)
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def at(self, name: str) -> None:
        with self._lock:
            self._passed[name] += 1
            if name == self._name and self._passed[name] == self._number:
                os.kill(os.getpid(), signal.SIGKILL)
                # The signal may arrive a moment later than this returns.
                threading.Event().wait()


class Wrapped:
    """Passes on everything that it doesn't define."""

    def __init__(self, inner: Any, points: Points) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CrashingBroker(Wrapped):
    def publish(self, messages: Sequence[Any], **options: Any) -> Any:
        is_task = any(message.type == "task" for message in messages)
        if is_task:
            self._points.at("before publish")
        answer = self._inner.publish(messages, **options)
        if is_task:
            self._points.at("after publish")
        return answer

    def subscribe(self, queue: str, **options: Any) -> Any:
        subscription = self._inner.subscribe(queue, **options)
        return CrashingSubscription(subscription, self._points) if queue.endswith("replies") else subscription


class CrashingSubscription(Wrapped):
    def take(self, **options: Any) -> Any:
        taken = self._inner.take(**options)
        if taken:
            self._points.at("after take")
        return taken

    def ack(self, deliveries: Sequence[Any]) -> None:
        self._points.at("before ack")
        self._inner.ack(deliveries)
        self._points.at("after ack")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shepherd.site.settings")
    django.setup()

    from django.db.backends.base.base import BaseDatabaseWrapper

    from shepherd.publisher import daemon
    from shepherd.site.scripts import worker_demon

    points = Points(os.environ["FAULTS_CRASH"])
    connect, commit = vars(daemon)["connect"], BaseDatabaseWrapper._commit  # type: ignore[attr-defined]  # Django's own

    def crashing_commit(connection: Any) -> None:
        points.at("before commit")
        commit(connection)
        points.at("after commit")

    vars(daemon)["connect"] = lambda *given, **named: CrashingBroker(connect(*given, **named), points)
    BaseDatabaseWrapper._commit = crashing_commit  # type: ignore[attr-defined]
    worker_demon.run()


if __name__ == "__main__":
    main()
