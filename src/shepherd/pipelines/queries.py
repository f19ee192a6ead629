"""Everything that may be read: the door for the API and the pages. No number of queries depends on a number of rows."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from shepherd.domain.status import ENDED_RUN, RunStatus, TaskStatus
from shepherd.errors import InvalidInputError, NotFoundError
from shepherd.names import project_key
from shepherd.pipelines import sql
from shepherd.pipelines.announced import Availability, CatalogueEntry, catalogue
from shepherd.pipelines.log_pages import LogEntry, LogPage, log_page, log_tail
from shepherd.pipelines.models import Attempt, Pause, Run, StatusChange, Task
from shepherd.pipelines.outline import Outline, OutlinePage, TaskOutline, outlines
from shepherd.pipelines.policies import project_policies
from shepherd.pipelines.projects import Project, known_projects
from shepherd.pipelines.results import TaskResult, one_result
from shepherd.pipelines.waiting import waiting_reasons

__all__ = [
    "Availability",
    "CatalogueEntry",
    "LogEntry",
    "LogPage",
    "Outline",
    "OutlinePage",
    "ProjectState",
    "RunDetail",
    "RunFilter",
    "RunPage",
    "RunSummary",
    "TaskOutline",
    "TaskResult",
    "catalogue",
    "find_number",
    "list_runs",
    "log_page",
    "log_tail",
    "one_project",
    "one_result",
    "one_run",
    "outlines",
    "pause_of",
    "projects",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are wanted; an empty field wants all."""

    status: str = ""
    project: str = ""
    #: The whole name of the pipeline.
    name: str = ""
    #: A part of the pipeline's or of a task's name, or the run's number.
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run with its tasks, whose contexts and results are not loaded."""

    run: Run
    tasks: tuple[Task, ...]
    #: Why it waits; None when it doesn't.
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Some runs, the newest first."""

    runs: tuple[RunSummary, ...]
    #: What `before` must be for the next page; None on the last one.
    next_before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """All that is known of a run but its log. The tokens and inputs of attempts are never loaded."""

    run: Run
    #: In their order; each with its attempts prefetched, the first one first.
    tasks: tuple[Task, ...]
    changes: tuple[StatusChange, ...]
    reason: str | None

    @property
    def has_ended(self) -> bool:
        return self.run.status in ENDED_RUN

    @property
    def is_resumable(self) -> bool:
        return self.has_ended and self.run.status != RunStatus.SUCCEEDED

    @property
    def stopped_task(self) -> Task | None:
        """The first task that has not succeeded: where a run is, or where it stopped."""
        return next((task for task in self.tasks if task.status != TaskStatus.SUCCEEDED), None)

    @property
    def correction_key(self) -> str | None:
        """What `stopped_task` is called in corrected contexts; None where nothing means it alone."""
        task = self.stopped_task
        if task is None:
            return None
        names = [name for each in self.tasks for name in {str(each.order_no), each.name}]
        return next((name for name in (str(task.order_no), task.name) if names.count(name) == 1), None)

    @property
    def prefect_url(self) -> str | None:
        """The address of Prefect's page for it; None where there is none."""
        base, flow_run = settings.SHEPHERD.prefect_ui_url, self.run.prefect_flow_run_id
        return f"{base}/runs/flow-run/{flow_run}" if base and flow_run else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectState:
    """A project, and what keeps its runs from being accepted or started."""

    project: Project
    #: None unless it is paused.
    pause: Pause | None
    #: What is wrong with its folder or `project.toml`: no pipeline is accepted meanwhile.
    faults: tuple[str, ...]


def list_runs(wanted: RunFilter, *, before: int | None, limit: int, now: datetime) -> RunPage:
    """Return the newest runs with a number below `before`, at most `limit`.

    Raises:
        InvalidInputError: A text in the filter can't be looked for.
    """
    rows = _filtered(wanted).defer("data", "error").order_by("-number")
    if before is not None:
        rows = rows.filter(number__lt=min(before, sql.LARGEST_NUMBER))
    tasks = Task.objects.defer("context", "result", "card", "error").order_by("position")
    found = list(rows.prefetch_related(Prefetch("tasks", tasks))[: limit + 1])
    runs = found[:limit]
    reasons = waiting_reasons(runs, now=now)
    return RunPage(
        runs=tuple(RunSummary(run=run, tasks=tuple(run.tasks.all()), reason=reasons.get(run.number)) for run in runs),
        next_before=runs[-1].number if len(found) > limit else None,
    )


def _filtered(wanted: RunFilter) -> QuerySet[Run]:
    for field in ("status", "project", "name", "text"):
        if "\0" in getattr(wanted, field):
            raise InvalidInputError.at(field, "must not hold NUL")
    exact = {
        "status": wanted.status,
        "project": project_key(wanted.project),
        "pipeline_name": wanted.name,
    }
    runs = Run.objects.filter(**{field: value for field, value in exact.items() if value})
    return runs.filter(_holds(wanted.text)) if wanted.text else runs


def _holds(text: str) -> Q:
    is_in_a_task = Exists(Task.objects.filter(run=OuterRef("pk"), name__icontains=text))
    holds = Q(pipeline_name__icontains=text) | Q(is_in_a_task)
    number = _as_number(text)
    return holds if number is None else holds | Q(number=number)


def find_number(reference: str) -> int:
    """Return the number of the run that a caller means by a UUID or a number.

    Raises:
        NotFoundError: There is none.
    """
    number = _as_number(reference)
    found = Run.objects.filter(number=number) if number is not None else Run.objects.filter(id=_as_uuid(reference))
    known = found.values_list("number", flat=True).first()
    if known is None:
        raise _no_run(reference)
    return known


def _as_number(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        return None
    number = int(text)
    return number if number <= sql.LARGEST_NUMBER else None


def _as_uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise _no_run(text) from None


def _no_run(reference: str) -> NotFoundError:
    return NotFoundError(f"there is no run {reference[:100]!r}")


def one_run(number: int, *, now: datetime) -> RunDetail:
    """Return a run.

    Raises:
        NotFoundError: There is none of this number.
    """
    attempts = Attempt.objects.defer("token", "data").order_by("attempt_no")
    tasks = Task.objects.defer("card").order_by("position").prefetch_related(Prefetch("attempts", attempts))
    changes = StatusChange.objects.order_by("number")
    run = (
        Run.objects.filter(number=number)
        .select_related("accepted_by")
        .prefetch_related(Prefetch("tasks", tasks), Prefetch("changes", changes))
        .first()
    )
    if run is None:
        raise _no_run(str(number))
    return RunDetail(
        run=run,
        tasks=tuple(run.tasks.all()),
        changes=tuple(run.changes.all()),
        reason=waiting_reasons([run], now=now).get(number),
    )


def projects() -> list[ProjectState]:
    """Return the projects that there are, in the order of the alphabet."""
    pauses = {pause.project: pause for pause in Pause.objects.all()}
    known = known_projects(settings.SHEPHERD.projects_folder).values()
    return [_state(project, pauses.get(project.key)) for project in known]


def one_project(name: str) -> ProjectState:
    """Return a project, by either of its spellings.

    Raises:
        NotFoundError: There is none of this name.
    """
    project = known_projects(settings.SHEPHERD.projects_folder).get(project_key(name))
    if project is None:
        raise NotFoundError(f"there is no project {name[:100]!r}")
    return _state(project, Pause.objects.filter(project=project.key).first())


def pause_of(project: str) -> Pause | None:
    """Return what keeps a project's runs from being started, if it is paused; by its stored name."""
    return Pause.objects.filter(project=project).first()


def _state(project: Project, pause: Pause | None) -> ProjectState:
    return ProjectState(project=project, pause=pause, faults=project_policies(project).faults)
