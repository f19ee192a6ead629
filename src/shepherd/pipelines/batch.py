"""Replies that come together, each put where it changes something; the first answer to an attempt counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shepherd.domain.status import ENDED_RUN, UNFINISHED_ATTEMPT, UNFINISHED_TASK, AttemptStatus, TaskStatus
from shepherd.pipelines.setbacks import LOST, Setback
from shepherd.wire.envelope import Claimed, Finished, Reply, Started, TaskError, Withdrawn

_Reply = TypeVar("_Reply", bound=Reply)
#: A reply, and the row of `ATTEMPTS` that it is for.
Pair = tuple[_Reply, Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class Batch:
    """Some replies, by what they change. To be filled in the order in which they came."""

    #: Tasks of lost attempts whose next attempt a worker has claimed.
    overtaken: set[int]
    #: By the attempt's number: the first word of each counts, as it does in batches of their own.
    started: dict[int, Pair[Started]] = field(default_factory=dict)
    claimed: dict[int, Pair[Claimed]] = field(default_factory=dict)
    succeeded: list[Pair[Finished]] = field(default_factory=list)
    #: Failed or given up; each is among `setbacks`, too.
    failed: list[Pair[Finished]] = field(default_factory=list)
    setbacks: list[Setback] = field(default_factory=list)
    #: Tasks of which a lost attempt has succeeded after all, by number.
    late: list[int] = field(default_factory=list)
    #: Attempts that a worker has answered for, and whose delivery it acks, by number.
    gone: list[int] = field(default_factory=list)
    dropped: int = 0
    _settled: set[int] = field(default_factory=set)

    def add(self, reply: Reply, row: Mapping[str, Any] | None) -> None:
        # No row is no fault: a redelivered reply came second to the first.
        if row is None:
            self.dropped += 1
        elif isinstance(reply, Started):
            self._add_if(self._is_first(row), self.started, (reply, row))
        elif isinstance(reply, Claimed):
            # A withdrawn one, too: its worker holds it, and has yet to be told.
            self._add_if(self._is_first(row) or _is_withdrawn(row), self.claimed, (reply, row))
            if is_open(row):
                self.overtaken.add(row["task_number"])
        elif isinstance(reply, Withdrawn):
            self._add_withdrawn(reply, row)
        else:
            self._add_finished(reply, row)

    def begun(self) -> list[Pair[Started]]:
        """Return those that were neither claimed nor ended in the same batch."""
        fresh = [pair for number, pair in self.started.items() if number not in self.claimed]
        return [pair for pair in fresh if pair[1]["task_number"] not in self._settled]

    def taken_over(self) -> list[Pair[Claimed]]:
        """Return those that were not ended in the same batch, and those that were withdrawn before."""
        pairs = self.claimed.values()
        return [pair for pair in pairs if _is_withdrawn(pair[1]) or pair[1]["task_number"] not in self._settled]

    def _add_if(self, is_wanted: bool, pairs: dict[int, Pair[_Reply]], pair: Pair[_Reply]) -> None:
        if is_wanted and pair[1]["attempt_number"] not in pairs:
            pairs[pair[1]["attempt_number"]] = pair
        else:
            self.dropped += 1

    def _add_withdrawn(self, reply: Withdrawn, row: Mapping[str, Any]) -> None:
        if self._is_first(row):
            # It took for withdrawn what isn't, and won't execute it.
            error = TaskError(code=LOST, message=f"worker {reply.worker} took it for withdrawn")
            self._settled.add(row["task_number"])
            self.setbacks.append(Setback(row=row, status=AttemptStatus.LOST, error=error, by=reply.worker))
        else:
            self.gone.append(row["attempt_number"])

    def _add_finished(self, reply: Finished, row: Mapping[str, Any]) -> None:
        if reply.error is None:
            self._take_back_loss(row)
        if reply.error is None and (self._is_first(row) or self._is_late(row)):
            if row["attempt_status"] == AttemptStatus.LOST:
                self.late.append(row["task_number"])
            self._settled.add(row["task_number"])
            self.succeeded.append((reply, row))
        elif reply.error is not None and self._is_first(row):
            status = AttemptStatus.LOST if reply.is_lost else AttemptStatus.FAILED
            self._settled.add(row["task_number"])
            self.setbacks.append(Setback(row=row, status=status, error=reply.error, by=reply.worker))
            self.failed.append((reply, row))
        else:
            self.dropped += 1
            self.gone.append(row["attempt_number"])

    def _take_back_loss(self, row: Mapping[str, Any]) -> None:
        """Forget that this batch gave an attempt up as lost: it has succeeded after all, before anything followed."""
        number = row["attempt_number"]
        if any(each.status == AttemptStatus.LOST and each.row["attempt_number"] == number for each in self.setbacks):
            self.setbacks = [each for each in self.setbacks if each.row["attempt_number"] != number]
            self.failed = [pair for pair in self.failed if pair[1]["attempt_number"] != number]
            self._settled.discard(row["task_number"])

    def _is_first(self, row: Mapping[str, Any]) -> bool:
        return row["task_number"] not in self._settled and is_open(row)

    def _is_late(self, row: Mapping[str, Any]) -> bool:
        """Whether a success of a lost attempt still counts: the task goes on, and nobody has claimed the next one."""
        is_undecided = row["task_status"] in {*UNFINISHED_TASK, TaskStatus.PENDING}
        is_lost = row["attempt_status"] == AttemptStatus.LOST
        is_free = row["task_number"] not in self._settled and row["task_number"] not in self.overtaken
        return is_lost and is_undecided and is_free and _is_of_this_try(row) and row["run_status"] not in ENDED_RUN


def _is_of_this_try(row: Mapping[str, Any]) -> bool:
    """Whether an attempt was opened after the last resume, which may have corrected the context."""
    opened = row["failures"] + row["losses"] + int(row["task_status"] != TaskStatus.PENDING)
    return bool(row["attempt_no"] > row["task_attempt_no"] - opened)


def _is_withdrawn(row: Mapping[str, Any]) -> bool:
    return bool(row["attempt_status"] == AttemptStatus.WITHDRAWN)


def is_open(row: Mapping[str, Any]) -> bool:
    """Whether a row of `ATTEMPTS` is an attempt that an answer may still end."""
    is_latest = row["attempt_no"] == row["task_attempt_no"]
    is_unfinished = row["attempt_status"] in UNFINISHED_ATTEMPT and row["task_status"] in UNFINISHED_TASK
    return is_latest and is_unfinished and row["run_status"] not in ENDED_RUN
