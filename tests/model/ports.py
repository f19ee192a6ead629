"""The Task Publisher's ports, at each of which it may die: commits, publishes, acks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.memory_server import MemoryServer
from shepherd.broker.port import Delivery, Message, Subscription
from shepherd.errors import TransientError

_WRITES = ("INSERT", "UPDATE", "DELETE")


class Died(BaseException):
    """The process was killed here; no `except Exception` sees it."""


class Fate:
    """Counts the calls to ports, and lets one of them be the last thing that isn't done."""

    def __init__(self, *, dies_before: int | None = None) -> None:
        self.calls: list[str] = []
        self._dies_before = dies_before

    def reach(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) == self._dies_before:
            raise Died(call)


class MortalBroker(MemoryBroker):
    """The shipped fake for a client that may die between any two messages."""

    def __init__(self, fate: Fate, *, watch: Callable[[Message], None], server: MemoryServer | None = None) -> None:
        super().__init__(server)
        self.fate = fate
        self._watch = watch

    def publish(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float = 10.0,
        on_sent: Callable[[], None] | None = None,
    ) -> list[TransientError | None]:
        outcomes: list[TransientError | None] = []
        for message in messages:
            self.fate.reach(f"publish {message.type}")
            self._watch(message)
            outcomes += super().publish([message], timeout_s=timeout_s)
        if on_sent is not None:
            on_sent()
        return outcomes

    def subscribe(self, queue: str, *, prefetch: int) -> Subscription:
        return _MortalSubscription(super().subscribe(queue, prefetch=prefetch), self)


class Through(Subscription):
    """Hands everything on to another subscription."""

    def __init__(self, inner: Subscription) -> None:
        self.inner = inner

    @property
    def generation(self) -> int | None:
        return self.inner.generation

    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        return self.inner.take(at_most=at_most, wait_s=wait_s)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.inner.ack(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.inner.release(deliveries)

    def close(self) -> None:
        self.inner.close()


class _MortalSubscription(Through):
    def __init__(self, inner: Subscription, broker: MortalBroker) -> None:
        super().__init__(inner)
        self._broker = broker

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._broker.fate.reach("ack")
        super().ack(deliveries)


@contextmanager
def mortal_database(fate: Fate) -> Iterator[None]:
    """Let every commit be a call to a port; what wasn't committed when it dies is rolled back."""
    # Django's default connection, itself and not its proxy.
    connection: Any = connections["default"]
    commit = connection._commit

    def mortal_commit() -> None:
        try:
            fate.reach("commit")
        except Died:
            # Django ends what it thinks was committed by a change of mode, which for SQLite is a commit.
            connection.connection.rollback()
            raise
        commit()

    def mortal_write(execute: Callable[..., Any], statement: str, parameters: Any, many: bool, context: Any) -> Any:
        if not connection.in_atomic_block and statement.lstrip().startswith(_WRITES):
            fate.reach("commit")
        return execute(statement, parameters, many, context)

    connection._commit = mortal_commit
    try:
        with connection.execute_wrapper(mortal_write):
            yield
    finally:
        connection._commit = commit
