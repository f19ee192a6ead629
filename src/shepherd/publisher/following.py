"""Which runs a flow has to drive or to follow, and what is written down of it."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from shepherd.domain.status import ENDED_RUN, UNFINISHED_TASK, RunStatus
from shepherd.pipelines.models import Run, Task
from shepherd.pipelines.ownership import Owner

_UNFOLLOWED: Final = ("waiting", "open")
#: A run this short is told in one call when it is over, instead of in two.
_SHORT: Final = timedelta(seconds=1)


def led(owner: Owner, *, without: Collection[int], limit: int) -> dict[int, int]:
    """Take runs that go on only when their flow drives them, in the order of acceptance; return their epochs."""
    has_publisher = Exists(Task.objects.filter(run_id=OuterRef("number"), is_led=True))
    runs = Run.objects.filter(has_publisher, status=RunStatus.RUNNING, data__isnull=False)
    free = owner.free(runs).exclude(number__in=without).order_by("number")
    return owner.take(list(free.values_list("number", flat=True)[:limit]))


def project_of(run_number: int) -> str:
    return Run.objects.values_list("project", flat=True).get(number=run_number)


def load(run_number: int) -> tuple[Run, list[Task]]:
    run = Run.objects.get(number=run_number)
    return run, list(Task.objects.filter(run_id=run_number).order_by("position"))


def task_in_hand(run_number: int) -> int | None:
    """Return the task of a run, by number, that a queue or a worker has, or that will be tried again by itself."""
    in_hand = Q(status__in=UNFINISHED_TASK) | Q(retry_at__isnull=False)
    return Task.objects.filter(in_hand, run_id=run_number).values_list("number", flat=True).first()


def over(owner: Owner, *, without: Collection[int], limit: int) -> list[tuple[Run, list[Task]]]:
    """Take runs that have ended, which Prefect doesn't show to their end, in the order of acceptance."""
    ended = owner.free(_unfollowed()).filter(status__in=ENDED_RUN).exclude(number__in=without)
    taken = owner.take(list(ended.values_list("number", flat=True)[:limit]))
    return _with_tasks(_unfollowed().filter(number__in=taken))


def live(*, limit: int) -> list[tuple[Run, list[Task]]]:
    """Return runs under way without a flow of their own, but for those that Prefect had better be told at their end."""
    has_publisher = Exists(Task.objects.filter(run_id=OuterRef("number"), is_led=True))
    begun = Q(prefect_state="open") | Q(started_at__lt=datetime.now(UTC) - _SHORT)
    return _with_tasks(_unfollowed().filter(~has_publisher, begun, status=RunStatus.RUNNING)[:limit])


def _unfollowed() -> QuerySet[Run]:
    return Run.objects.filter(prefect_state__in=_UNFOLLOWED).order_by("number").defer("data")


def _with_tasks(runs: QuerySet[Run]) -> list[tuple[Run, list[Task]]]:
    # Without results and contexts, which may be large.
    shown = Task.objects.order_by("position").defer("result", "context")
    return [(run, list(run.tasks.all())) for run in runs.prefetch_related(Prefetch("tasks", shown))]


def made(flow_run_ids: Mapping[int, UUID]) -> None:
    """Write down which flow run shows a run, by its number. Whoever asks Prefect gets the same one."""
    with transaction.atomic():
        for number, flow_run_id in flow_run_ids.items():
            Run.objects.filter(number=number).update(prefect_state="open", prefect_flow_run_id=flow_run_id)


def followed(run_numbers: Collection[int]) -> None:
    # One that was resumed meanwhile has not been shown to its end.
    Run.objects.filter(number__in=run_numbers, status__in=ENDED_RUN).update(prefect_state="done", prefect_note="")


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
