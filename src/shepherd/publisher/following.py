"""Which runs a flow has to drive or to follow, and what is written down of it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef

from shepherd.domain.status import RunStatus
from shepherd.pipelines.models import Run, Task
from shepherd.publisher.outcomes import Database

_UNFOLLOWED = ("waiting", "open")


def led(*, without: Collection[int], limit: int) -> list[int]:
    """Return runs that go on only when their flow drives them, in the order of acceptance."""
    has_publisher = Exists(Task.objects.filter(run_id=OuterRef("number"), is_led=True))
    runs = Run.objects.filter(has_publisher, status=RunStatus.RUNNING, data__isnull=False)
    return list(runs.exclude(number__in=without).order_by("number").values_list("number", flat=True)[:limit])


def unfollowed(*, without: Collection[int], limit: int) -> list[int]:
    """Return runs that Prefect doesn't show yet, or not to their end, in the order of acceptance."""
    runs = Run.objects.filter(prefect_state__in=_UNFOLLOWED, data__isnull=False).exclude(status=RunStatus.ACCEPTED)
    return list(runs.exclude(number__in=without).order_by("number").values_list("number", flat=True)[:limit])


class Followed:
    """What is written down of one run's flow run, for its engine to read and to complete."""

    def __init__(self, run: Run, database: Database) -> None:
        self._number = run.number
        self._database = database
        self.flow_run_id = run.prefect_flow_run_id
        #: Whether some process may have made a flow run before.
        self.was_opened = run.prefect_state == "open"

    async def opening(self) -> None:
        """Write down that a flow run is about to be made: a crash in between leaves one to be looked for."""
        await self._database.call(self._update, prefect_state="open")

    async def made(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        await self._database.call(self._update, prefect_flow_run_id=flow_run_id)

    def _update(self, **columns: Any) -> None:
        Run.objects.filter(number=self._number).update(**columns)


def followed(run_number: int) -> None:
    Run.objects.filter(number=run_number).update(prefect_state="done", prefect_note="")


def given_up(run_number: int, reason: str) -> None:
    Run.objects.filter(number=run_number).update(prefect_state="absent", prefect_note=reason)


def note(reason: str, *, run_number: int | None = None, since: datetime | None = None) -> None:
    """Say on a run, or on all that began before a time, why Prefect doesn't show them."""
    runs = Run.objects.filter(prefect_state__in=_UNFOLLOWED).exclude(prefect_note=reason)
    if run_number is not None:
        runs = runs.filter(number=run_number)
    if since is not None:
        runs = runs.filter(started_at__lt=since)
    runs.update(prefect_note=reason)
