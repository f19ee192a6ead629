"""Why something waits, in one sentence, computed from rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, F, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from shepherd.pipelines.announced import Availability, availability
from shepherd.pipelines.models import Attempt, Run, Task

#: A confirm takes milliseconds; after this the Task Publisher tries again, too.
_CONFIRM_PATIENCE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queued:
    """A published task's place."""

    #: Tasks of the same name that were published before it and that no worker has begun.
    ahead: int
    #: When its attempt was opened, as long as the broker hasn't confirmed it; None once it has.
    unconfirmed_since: datetime | None


def waiting_reasons(runs: Sequence[Run], *, now: datetime) -> dict[int, str]:
    """Return why each run waits, by its number; one that doesn't wait is left out.

    The runs' tasks should be prefetched in their order. Takes two queries for any number of runs.
    """
    current = {run.number: _current_task(run) for run in runs if run.status not in ENDED_RUN}
    published = [task for task in current.values() if task is not None and task.status == TaskStatus.PUBLISHED]
    served = availability({task.name for task in published}, now=now)
    queued = _queued(published)
    found = {
        run.number: _reason(run, current[run.number], served=served, queued=queued, now=now)
        for run in runs
        if run.number in current
    }
    return {number: reason for number, reason in found.items() if reason}


def _current_task(run: Run) -> Task | None:
    return next((task for task in run.tasks.all() if task.status != TaskStatus.SUCCEEDED), None)


def _queued(tasks: Iterable[Task]) -> dict[int, _Queued]:
    before = Task.objects.filter(
        name=OuterRef("name"), status=TaskStatus.PUBLISHED, published_at__lt=OuterRef("published_at")
    )
    # No `order_by`, and grouped by what is the same in all of them: one count.
    ahead = before.order_by().values("name").annotate(count=Count("pk")).values("count")
    unconfirmed = Attempt.objects.filter(
        task=OuterRef("pk"), attempt_no=OuterRef("attempt_no"), confirmed_at__isnull=True
    )
    rows = (
        Task.objects.filter(pk__in=[task.pk for task in tasks])
        .annotate(
            ahead=Coalesce(Subquery(ahead), Value(0)),
            unconfirmed_since=Subquery(unconfirmed.annotate(at=F("published_at")).values("at")[:1]),
        )
        .values_list("pk", "ahead", "unconfirmed_since")
    )
    return {pk: _Queued(ahead=count, unconfirmed_since=since) for pk, count, since in rows}


def _reason(
    run: Run,
    task: Task | None,
    *,
    served: Mapping[str, Availability],
    queued: Mapping[int, _Queued],
    now: datetime,
) -> str | None:
    if run.status == RunStatus.ACCEPTED:
        return "Waiting for the Task Publisher to start it."
    if task is None:
        return "All tasks are done; the Task Publisher is about to close the run."
    if task.status == TaskStatus.PENDING:
        return _pending_reason(run, task)
    # A task that moved on between two queries waits for nothing any more.
    if task.status == TaskStatus.PUBLISHED and task.pk in queued:
        return _published_reason(task, served.get(task.name), queued[task.pk], now=now)
    return None


def _pending_reason(run: Run, task: Task) -> str:
    if run.data is None and run.data_url:
        return "Fetching data_url."
    if task.is_led and run.prefect_state == "waiting":
        note = f" {run.prefect_note}" if run.prefect_note else ""
        return f"Waiting for a Prefect slot: a publisher of project {run.project!r} leads {task.name!r}.{note}"
    if task.is_led:
        return f"The publisher of {task.name!r} in project {run.project!r} is at work."
    return f"The Task Publisher is about to publish {task.name!r}."


def _published_reason(task: Task, served: Availability | None, queued: _Queued, *, now: datetime) -> str:
    since = queued.unconfirmed_since
    if since is not None and now - since > _CONFIRM_PATIENCE:
        return (
            f"RabbitMQ is unreachable or takes no messages: {task.name!r} waits to be handed over since {_at(since)}."
        )
    if served is None:
        return f"No worker has ever announced {task.name!r}."
    if not served.workers:
        return f"Every worker that serves {task.name!r} has been offline since {_at(served.last_seen_at)}."
    if served.free_slots and not queued.ahead:
        return f"RabbitMQ has {task.name!r}; a worker with a free slot takes it next."
    if served.free_slots:
        return f"Workers take {task.name!r} in turn, and {queued.ahead} came before it."
    busy = "The only slot" if served.slots == 1 else f"Each of the {served.slots} slots"
    ahead = f", and {queued.ahead} came before it" if queued.ahead else ""
    return f"{busy} for {task.name!r} is busy{ahead}."


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
