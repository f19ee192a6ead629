"""Removing what nobody needs any more, from database, store and broker, in this order and a little at a time."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Final, TypeVar

from shepherd.broker import connect
from shepherd.broker.port import Broker, Comparison, Presence
from shepherd.broker.topology import is_task_queue, task_queue, task_queue_spec
from shepherd.errors import BrokerUnavailableError, InvalidInputError
from shepherd.pipelines import catalogue, pruning, unconfirmed, withdrawn
from shepherd.pipelines.leftovers import leftovers
from shepherd.pipelines.names_in_use import known_names, needed_names
from shepherd.pipelines.pruning import Rows
from shepherd.publisher.marking import MARKS
from shepherd.site.config import ServerConfig
from shepherd.site.doctor.situation import look
from shepherd.store import open_store
from shepherd.store.port import StoredObject

_PERIOD: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: After each transaction others have the database for as long, within these bounds: SQLite lets one write at a time.
_SHORTEST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
_CONNECT_S: Final = 5.0
_WORKERS_AT_ONCE: Final = 500
_OLDEST_MARK: Final = timedelta(days=1)

_T = TypeVar("_T")
Say = Callable[[str], None]


def period(text: str) -> timedelta:
    """Return how long `30d`, `12h`, `2w`, `90m` or `45s` is.

    Raises:
        InvalidInputError: It is none of these.
    """
    found = _PERIOD.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError.at("--older-than", f"{text!r} must be a number with s, m, h, d or w, as in 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Objects, and their bytes."""

    objects: int = 0
    size: int = 0

    def plus(self, found: Iterable[StoredObject]) -> "Volume":
        each = list(found)
        return Volume(objects=self.objects + len(each), size=self.size + sum(one.size for one in each))


class Prune:
    """One call of `manage.py prune`. Each step may be broken off, and called again."""

    def __init__(self, config: ServerConfig, *, older_than: timedelta, now: datetime, say: Say) -> None:
        self._config = config
        self._now = now
        self._before = now - older_than
        self._say = say
        self._store = open_store(config.store_url)
        # Before anything goes: the names of tasks of runs that are removed are known afterwards from nowhere else.
        self._names = known_names()

    def show(self) -> None:
        """Say what would go.

        Raises:
            StoreUnavailableError: The store can't be looked at.
        """
        self._store.check()
        numbers = pruning.old_runs(before=self._before)
        self._tell_rows("would go", pruning.rows_of(numbers), pruning.old_dead_messages(before=self._before))
        self._tell_workers("would go", len(catalogue.gone_workers(before=self._before)))
        volume = Volume()
        for found in chain(leftovers(self._store, before=self._before, without=numbers), [self._old_marks()]):
            volume = volume.plus(found)
        self._tell_volume("would go", volume)
        with_broker(self._config, lambda broker: self._tell_queues("would go", self._idle_queues(broker)), self._say)

    def remove(self) -> None:
        """Remove it, saying what went.

        Raises:
            StoreUnavailableError: The store can't be reached; whatever was removed before that was done with.
        """
        # First: objects whose run is gone are found again by the next call, but nobody should have to know that.
        self._store.check()
        self._remove_rows()
        self._remove_workers()
        self._remove_objects()
        with_broker(self._config, self._remove_queues, self._say)

    def _remove_rows(self) -> None:
        total, dead = Rows(), 0
        try:
            for rows in paced(pruning.remove_old_runs(before=self._before)):
                total += rows
            for removed in paced(pruning.remove_old_dead_messages(before=self._before)):
                dead += removed
        finally:
            self._tell_rows("removed", total, dead)

    def _remove_workers(self) -> None:
        numbers, removed = catalogue.gone_workers(before=self._before), 0
        try:
            chunks = (numbers[start : start + _WORKERS_AT_ONCE] for start in range(0, len(numbers), _WORKERS_AT_ONCE))
            for count in paced(catalogue.forget_workers(chunk, before=self._before) for chunk in chunks):
                removed += count
        finally:
            self._tell_workers("removed", removed)

    def _remove_objects(self) -> None:
        volume = Volume()
        try:
            for found in chain(leftovers(self._store, before=self._before), [self._old_marks()]):
                self._store.delete([each.key for each in found])
                volume = volume.plus(found)
        finally:
            self._tell_volume("removed", volume)

    def _old_marks(self) -> list[StoredObject]:
        """Return what Task Publishers left that were killed; those that live renew theirs each hour."""
        before = min(self._before, self._now - _OLDEST_MARK)
        return [each for each in self._store.list(MARKS) if each.modified_at < before]

    def _remove_queues(self, broker: Broker) -> None:
        idle = self._idle_queues(broker)
        broker.delete([task_queue(name) for name in idle])
        # Whatever was published between the look and this is written down, and is published again.
        unconfirmed.forget_confirms(idle)
        # Else their runs would be kept for ever, since no worker of the name will ever say that no queue holds them.
        withdrawn.forget_of(idle)
        self._tell_queues("removed", idle)

    def _idle_queues(self, broker: Broker) -> list[str]:
        """Return the names of tasks whose queue is empty and that nobody serves, served lately, or waits for."""
        names = sorted((self._names | self._queued_names()) - needed_names(since=self._before))
        compared = broker.compare(queues=[task_queue_spec(name) for name in names])
        return [name for name, each in zip(names, compared, strict=True) if _is_idle(each)]

    def _queued_names(self) -> frozenset[str]:
        """Return the names of queues that only the broker knows of, where it can be asked."""
        facts = look(self._config).facts
        queues = facts.queues if facts is not None else ()
        return frozenset(each.name.removeprefix(task_queue("")) for each in queues if is_task_queue(each.name))

    def _tell_rows(self, went: str, rows: Rows, dead: int) -> None:
        before = f"{self._before:%Y-%m-%d %H:%M} UTC"
        self._say(
            f"runs that ended before {before}: {rows.runs} {went}, with {rows.tasks} tasks, {rows.attempts} attempts, "
            f"{rows.changes} changes of status, {rows.lines} log lines"
        )
        if held := pruning.held_runs(before=self._before):
            self._say(f"runs that stay, since a queue may hold a withdrawn or lost attempt of theirs: {held}")
        self._say(f"messages that nobody could use: {dead} {went}")

    def _tell_workers(self, went: str, count: int) -> None:
        self._say(f"starts of workers that nobody has heard of since, nor shown by the catalogue: {count} {went}")

    def _tell_volume(self, went: str, volume: Volume) -> None:
        self._say(f"objects in {self._store.url}: {volume.objects} {went}, {volume.size / 1024**2:.1f} MiB")

    def _tell_queues(self, went: str, names: list[str]) -> None:
        listed = f": {', '.join(task_queue(name) for name in names)}" if names else ""
        self._say(f"empty queues that nobody serves: {len(names)} {went}{listed}")


def _is_idle(queue: Comparison) -> bool:
    # One that is different isn't ours to remove.
    return queue.presence is Presence.SAME and not queue.messages and not queue.consumers


def with_broker(config: ServerConfig, use: Callable[[Broker], None], say: Say) -> None:
    """Do something with the broker; where it doesn't answer, say so and leave it to the next call."""
    broker = connect(config.broker_url, name="prune")
    try:
        broker.server_info(timeout_s=_CONNECT_S)
        use(broker)
    except BrokerUnavailableError as error:
        say(f"empty queues: not looked at, {error}")
    finally:
        broker.close()


def paced(steps: Iterator[_T]) -> Iterator[_T]:
    """Return the steps, with pauses in which others get to work."""
    while True:
        began = time.monotonic()
        step = next(steps, None)
        if step is None:
            return
        yield step
        # The pause is the purpose; nothing is waited for.
        time.sleep(min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, time.monotonic() - began)))
