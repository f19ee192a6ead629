"""Task Publishers with one promise broken in each. What can't tell them from the real one is no test of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pytest
from django.db import transaction

from shepherd.broker.port import Delivery
from shepherd.pipelines import advance, batch, recording
from shepherd.pipelines.advance import Moved
from shepherd.pipelines.intents import Intent, NextTask, open_attempts
from shepherd.publisher import withdrawing
from shepherd.publisher.dispatch import Dispatch
from shepherd.publisher.ears import Ears
from shepherd.publisher.relay import Relay
from shepherd.wire.envelope import TaskError
from tests.model.bounds import Bounds
from tests.model.ports import Through
from tests.model.publisher import Parts
from tests.model.suites import FAULTS, LED


class _AckedAtOnce(Through):
    """A consumer that takes a delivery for done as soon as it has it."""

    def take(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        deliveries = super().take(at_most=at_most, wait_s=wait_s)
        super().ack(deliveries)
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: that was done."""


@contextmanager
def _unfenced(_: Dispatch) -> Iterator[None]:
    """Any answer counts, whatever became of its attempt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "is_open", lambda _: True)
        yield


@contextmanager
def _published_first(dispatch: Dispatch) -> Iterator[None]:
    """What is about to be written down is published before the commit."""

    def open_and_publish(tasks: Sequence[NextTask], *, now: datetime, by: str) -> list[Intent]:
        intents = open_attempts(tasks, now=now, by=by)
        dispatch.publish(intents)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advance, "open_attempts", open_and_publish)
        yield


@contextmanager
def _in_two_transactions(_: Dispatch) -> Iterator[None]:
    """A result is committed first, and then what follows it is opened."""
    record = recording.record
    postponed: list[Any] = []

    def postpone(tasks: Sequence[Any], moved: Moved, *, now: datetime) -> None:
        postponed.extend(tasks)

    def record_then_open(*arguments: Any, now: datetime, **others: Any) -> Moved:
        moved = record(*arguments, now=now, **others)
        with transaction.atomic():
            advance.open_tasks(postponed, moved, now=now)
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "open_tasks", postpone)
        patch.setattr(recording, "record", record_then_open)
        yield


class _Unfair(batch.Batch):
    def _is_late(self, row: Mapping[str, Any]) -> bool:
        self.overtaken.clear()
        return super()._is_late(row)


@contextmanager
def _never_overtaken(_: Dispatch) -> Iterator[None]:
    """The success of a lost attempt counts, whoever has the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "Batch", _Unfair)
        yield


@contextmanager
def _untold(_: Dispatch) -> Iterator[None]:
    """Nobody is told what was withdrawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(withdrawing, "queued_withdrawn", list)
        yield


class _Credulous(Ears):
    """Takes silence for an end, whether or not it could have heard anything."""

    def have_heard(self, *, database_at: datetime) -> bool:  # noqa: ARG002
        return True

    def are_done(self) -> bool:
        return True


class _Unowned(Relay):
    """Lets a flow write whoever owns its run by now."""

    def publish(self, task_number: int, **others: Any) -> None:
        super().publish(task_number, **{**others, "epoch": None})

    def fail(self, run_number: int, error: TaskError, **others: Any) -> None:
        super().fail(run_number, error, **{**others, "epoch": None})


class _Forgetful(Relay):
    """Publishes nothing again of which it doesn't know that the broker has it."""

    def resend(self) -> int:
        return 0


class _Trusting(Relay):
    """Takes what the broker had for what it has."""

    def resend_missed(self) -> int:
        return 0


class _Patient(Relay):
    """Waits for ever for a worker that is gone."""

    def end_leases(self) -> None:
        """Do nothing."""


_ANY_FAULT: Final = Bounds(faults=1, most={**FAULTS, "cancel": 1})
_SHORT_TASK: Final = Bounds(faults=1, most={"publisher": 1, "drop": 1}, tasks=1, claims=False)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    parts: Parts
    #: Words of what the model has to say of it.
    found_as: str
    bounds: Bounds = _ANY_FAULT


MUTANTS: Final = {
    "fence removed": Mutant(parts=Parts(patched=_unfenced), found_as="would change something if it came again"),
    "fence of owners removed": Mutant(parts=Parts(relay=_Unowned), found_as="a former owner's write", bounds=LED),
    "ack before commit": Mutant(parts=Parts(subscription=_AckedAtOnce), found_as="was acked"),
    "publish before intent": Mutant(parts=Parts(patched=_published_first), found_as="before the intent was committed"),
    "next intent in a second transaction": Mutant(
        parts=Parts(patched=_in_two_transactions),
        found_as="nothing leads",
        # Known only when all is explored: what is missing then never comes.
        bounds=Bounds(faults=1, most={"publisher": 1}, claims=False),
    ),
    "lease running while deaf": Mutant(parts=Parts(ears=_Credulous), found_as="and its worker lives"),
    "stale attempt recorded": Mutant(
        parts=Parts(patched=_never_overtaken),
        found_as="had been claimed",
        bounds=Bounds(faults=1, most={"stall": 1}, tasks=1),
    ),
    "unconfirmed forgotten": Mutant(parts=Parts(relay=_Forgetful), found_as="nothing leads", bounds=_SHORT_TASK),
    "vanished not missed": Mutant(parts=Parts(relay=_Trusting), found_as="nothing leads", bounds=_SHORT_TASK),
    "lease without end": Mutant(
        parts=Parts(relay=_Patient), found_as="nothing leads", bounds=Bounds(faults=1, most={"worker": 1}, tasks=1)
    ),
    "cancel ignored while queued": Mutant(parts=Parts(patched=_untold), found_as="begun after it was withdrawn"),
}
