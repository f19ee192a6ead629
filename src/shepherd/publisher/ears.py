"""Whether this Task Publisher has heard long enough to take a worker's silence for its end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

#: How long a turn of taking from a queue, or the time between two looks, may last. Who takes waits for a second.
_PATIENCE_S: Final = (3.0, 5.0)
#: Between the database's clock and this process's own since the last look: then one of them has jumped.
_DRIFT: Final = timedelta(seconds=5)
#: How long it counts that nothing waited.
_EMPTY_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What was in hand of a queue at a time has been worked through."""

    began_at: float
    #: Of the consumer; see `Subscription.generation`.
    generation: int


class Ears:
    """Says whether all that was sent has been heard for a whole lease, up to now.

    Not so after a start, after a consumer was established anew, after a jump of a clock, or after this process stood
    still: then a lease has to pass first. May be used by several threads.
    """

    def __init__(self, *queues: str, lease: timedelta, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.now = monotonic
        self._queues = queues
        self._lease_s = lease.total_seconds()
        self._patience_s = min(max(self._lease_s / 2, _PATIENCE_S[0]), _PATIENCE_S[1])
        self._turns: dict[str, _Turn] = {}
        self._generations: dict[str, int] = {}
        self._hearing_since: float | None = None
        self._looked_at = float("-inf")
        self._offset = timedelta.min
        #: When the broker had nothing that waited.
        self._empty_at = float("-inf")
        self._guard = threading.Lock()

    def turned(self, queue: str, *, began_at: float, generation: int | None) -> None:
        """Note that what could be taken from a queue is worked through; time and generation are those before taking."""
        if generation is not None:
            with self._guard:
                self._turns[queue] = _Turn(began_at, generation)

    def emptied(self) -> None:
        """Note that nothing waits in any of the queues; what is in hand may still be worked on."""
        with self._guard:
            # The first word counts, until it is old: turns that follow it have to be waited for.
            if self.now() - self._empty_at > _EMPTY_S:
                self._empty_at = self.now()

    def have_heard(self, *, database_at: datetime) -> bool:
        """Return whether silence says something now. To be asked each second, with the database's time."""
        with self._guard:
            now = self.now()
            has_stood_still = now - self._looked_at > self._patience_s
            self._looked_at = now
            # All are asked each time: what they remember is of the last look.
            faults = [self._has_jumped(database_at, now), self._is_another_consumer(), not self._is_taking(now)]
            if has_stood_still or any(faults):
                self._hearing_since = None
            elif self._hearing_since is None:
                self._hearing_since = now
            return self._hearing_since is not None and now - self._hearing_since >= self._lease_s

    def are_done(self) -> bool:
        """Return whether everything that had come to the queues a moment ago has been worked through."""
        with self._guard:
            is_recent = self.now() - self._empty_at <= _EMPTY_S
            return is_recent and all(turn.began_at > self._empty_at for turn in self._turns.values())

    def _has_jumped(self, database_at: datetime, now: float) -> bool:
        before, self._offset = self._offset, database_at - _EPOCH - timedelta(seconds=now)
        return before is timedelta.min or abs(self._offset - before) > _DRIFT

    def _is_another_consumer(self) -> bool:
        before, self._generations = (
            self._generations,
            {queue: turn.generation for queue, turn in self._turns.items()},
        )
        return self._generations != before

    def _is_taking(self, now: float) -> bool:
        turns = [self._turns.get(queue) for queue in self._queues]
        return all(turn is not None and now - turn.began_at <= self._patience_s for turn in turns)
