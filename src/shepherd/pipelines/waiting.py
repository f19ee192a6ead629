"""Why something waits, in one sentence, computed from rows."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final

from django.conf import settings
from django.db.models import Case, Count, F, When
from django.db.models.functions import Coalesce

from shepherd.domain.status import ENDED_RUN, AttemptStatus, RunStatus, TaskStatus
from shepherd.pipelines.announced import Availability, availability
from shepherd.pipelines.models import Attempt, Pause, Run, Task

#: A confirm takes milliseconds; after this the Task Publisher tries again, too.
_CONFIRM_PATIENCE: Final = timedelta(seconds=5)
#: Characters of an error's text within a reason.
_ERROR_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Latest:
    """What is needed of a task's latest attempt."""

    status: str
    worker: str
    error: dict[str, Any] | None
    published_at: datetime
    confirmed_at: datetime | None
    lease_until: datetime | None
    #: When it was last sure that a worker has it: by a heartbeat, by its claim, or by its beginning.
    held_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """All that reasons are made of, beside the runs themselves."""

    served: Mapping[str, Availability]
    #: By the task's number.
    latest: Mapping[int, _Latest]
    #: Tasks of the same name that were published before it and that no worker has begun, by the task's number.
    ahead: Mapping[int, int]
    #: By project.
    pauses: Mapping[str, Pause]
    #: Numbers of runs whose data isn't there yet.
    fetching: Collection[int]
    now: datetime


def waiting_reasons(runs: Sequence[Run], *, now: datetime) -> dict[int, str]:
    """Return why each run waits, by its number; one that doesn't wait is left out.

    The runs' tasks should be prefetched in their order. Takes five queries for any number of runs.
    """
    current = {run.number: _current_task(run) for run in runs if run.status not in ENDED_RUN}
    tasks = [task for task in current.values() if task is not None and task.attempt_no]
    handed_over = {task.name for task in tasks if task.status in {TaskStatus.PUBLISHED, TaskStatus.RUNNING}}
    accepted = {run.project for run in runs if run.status == RunStatus.ACCEPTED}
    known = _Known(
        served=availability(handed_over, now=now),
        latest=_latest(tasks),
        ahead=_ahead([task for task in tasks if task.status == TaskStatus.PUBLISHED]),
        pauses={pause.project: pause for pause in Pause.objects.filter(project__in=accepted)},
        fetching=_fetching([run for run in runs if run.status == RunStatus.RUNNING]),
        now=now,
    )
    found = {run.number: _reason(run, current[run.number], known) for run in runs if run.number in current}
    return {number: reason for number, reason in found.items() if reason}


def _current_task(run: Run) -> Task | None:
    return next((task for task in run.tasks.all() if task.status != TaskStatus.SUCCEEDED), None)


def _fetching(runs: Iterable[Run]) -> Collection[int]:
    # By a query, since the data itself may be large, and isn't loaded for a list.
    wanted = [run.number for run in runs if run.data_url]
    return set(Run.objects.filter(number__in=wanted, data__isnull=True).values_list("number", flat=True))


def _latest(tasks: Iterable[Task]) -> dict[int, _Latest]:
    rows = (
        Attempt.objects.filter(task__in=[task.pk for task in tasks], attempt_no=F("task__attempt_no"))
        .annotate(held_at=Coalesce("seen_at", "claimed_at", "started_at"))
        .values("task_id", *_Latest.__dataclass_fields__)
    )
    return {row.pop("task_id"): _Latest(**row) for row in rows}


def _ahead(published: Iterable[Task]) -> dict[int, int]:
    times = {task.pk: task.published_at for task in published if task.published_at is not None}
    if not times:
        return {}
    # All that waits is gone through once, not once for each task of a page: thousands may wait.
    ends = sorted(set(times.values()))
    first_end = Case(*(When(published_at__lt=end, then=place) for place, end in enumerate(ends)))
    names = {task.pk: task.name for task in published}
    waiting = Task.objects.filter(name__in=set(names.values()), status=TaskStatus.PUBLISHED, published_at__lt=ends[-1])
    counts = waiting.order_by().values_list("name", first_end).annotate(count=Count("pk"))
    before: dict[str, list[int]] = {name: [0] * len(ends) for name in names.values()}
    for name, place, count in counts:
        before[name][place] = count
    sums = {name: list(accumulate(counted)) for name, counted in before.items()}
    return {number: sums[names[number]][ends.index(time)] for number, time in times.items()}


def _reason(run: Run, task: Task | None, known: _Known) -> str | None:
    if run.status == RunStatus.ACCEPTED:
        return _accepted_reason(run, known)
    if task is None:
        return "All tasks are done; the Task Publisher is about to close the run."
    latest = known.latest.get(task.pk)
    if task.status == TaskStatus.PENDING:
        return (
            "Fetching data_url." if run.number in known.fetching else _pending_reason(run, task, latest, now=known.now)
        )
    # A task that moved on between two queries waits for nothing any more.
    if latest is None:
        return None
    if task.status == TaskStatus.PUBLISHED:
        ahead = known.ahead.get(task.pk, 0)
        return _published_reason(task, known.served.get(task.name), latest, ahead=ahead, now=known.now)
    return _running_reason(task, known.served.get(task.name), latest, now=known.now)


def _accepted_reason(run: Run, known: _Known) -> str:
    pause = known.pauses.get(run.project)
    if pause is None:
        return run.prefect_note or "Waiting for the Task Publisher to start it."
    why = f": {pause.reason}" if pause.reason else ""
    return f"Project {run.project!r} has been paused by {pause.by} since {_at(pause.at)}{_ended(why)}"


def _pending_reason(run: Run, task: Task, latest: _Latest | None, *, now: datetime) -> str:
    if task.retry_at is not None and task.retry_at > now:
        return f"Attempt {task.attempt_no + 1} of {task.name!r} is due at {_at(task.retry_at)}{_ended(_why(latest))}"
    # A retry of what a publisher led needs no publisher: it is sent with what the one before was sent with.
    if task.is_led and task.retry_at is None:
        return _led_reason(run, task)
    return f"The Task Publisher is about to publish {task.name!r}."


def _led_reason(run: Run, task: Task) -> str:
    if run.prefect_state == "waiting":
        note = f" {run.prefect_note}" if run.prefect_note else ""
        return f"Waiting for a Prefect slot: a publisher of project {run.project!r} leads {task.name!r}.{note}"
    return f"The publisher of {task.name!r} in project {run.project!r} is at work."


def _why(latest: _Latest | None) -> str:
    """Return why the last attempt didn't succeed, as the end of a sentence."""
    if latest is None:
        return ""
    if latest.status == AttemptStatus.LOST:
        return f": the last one was lost with worker {latest.worker or 'that had it'}"
    if latest.error is None:
        return ""
    message = str(latest.error.get("message", ""))
    shown = message if len(message) <= _ERROR_SHOWN else f"{message[:_ERROR_SHOWN]}…"
    return f": the last one failed with {latest.error.get('code', 'an error')}, {shown}"


def _published_reason(task: Task, served: Availability | None, latest: _Latest, *, ahead: int, now: datetime) -> str:
    since = latest.published_at
    if latest.confirmed_at is None and now - since > _CONFIRM_PATIENCE:
        return (
            f"RabbitMQ is unreachable or takes no messages: {task.name!r} waits to be handed over since {_at(since)}."
        )
    if served is None:
        return f"No worker has ever announced {task.name!r}."
    return _served_reason(task, served, ahead)


def _served_reason(task: Task, served: Availability, ahead: int) -> str:
    if not served.workers and served.draining:
        return f"Every worker that serves {task.name!r} is being drained: it ends what it has and takes nothing new."
    if not served.workers:
        return f"Every worker that serves {task.name!r} has been offline since {_at(served.last_seen_at)}."
    if served.strangers == served.workers:
        return (
            f"Every worker that serves {task.name!r} keeps data in another store than the Task Publisher "
            "(SHEPHERD_STORE): it takes only what travels without one."
        )
    if served.free_slots and not ahead:
        return f"RabbitMQ has {task.name!r}; a worker with a free slot takes it next."
    if served.free_slots:
        return f"Workers take {task.name!r} in turn, and {ahead} came before it."
    busy = "The only slot" if served.slots == 1 else f"Each of the {served.slots} slots"
    others = f", and {ahead} came before it" if ahead else ""
    return f"{busy} for {task.name!r} is busy{others}."


def _running_reason(task: Task, served: Availability | None, latest: _Latest, *, now: datetime) -> str | None:
    if latest.held_at is None or now - latest.held_at <= settings.SHEPHERD.worker_gone_after:
        return None
    silent = f"Nothing was heard of worker {latest.worker!r}, which has {task.name!r}, since {_at(latest.held_at)}"
    if latest.lease_until is None:
        # RabbitMQ still has what isn't claimed, and notices before us that a connection is gone.
        others = (
            "the next worker of this name" if served and served.workers else "a worker of this name once there is one"
        )
        return f"{silent}; if it is gone, RabbitMQ delivers the task to {others}."
    if latest.lease_until > now:
        return f"{silent}; unless it speaks up, the attempt is lost at {_at(latest.lease_until)}."
    lease_s = settings.SHEPHERD.lease.total_seconds()
    return f"{silent}; the attempt is lost once the Task Publisher has listened for {lease_s:g} s without a break."


def _ended(sentence: str) -> str:
    """Return the end of a sentence with one full stop, and in one line."""
    text = " ".join(sentence.split())
    start = " " if sentence.startswith(" ") else ""
    return f"{start}{text}" if text.endswith((".", "!", "?", "…")) else f"{start}{text}."


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
