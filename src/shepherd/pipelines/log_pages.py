"""The log of a run, page by page, in the order in which its lines arrived."""

from dataclasses import dataclass

from shepherd.domain.status import ENDED_RUN
from shepherd.errors import NotFoundError
from shepherd.pipelines import sql
from shepherd.pipelines.models import Attempt, LogLine, Run, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line, with the attempt that wrote it."""

    line: LogLine
    attempt: Attempt

    @property
    def task(self) -> Task:
        return self.attempt.task


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some lines of a run, in the order of their arrival."""

    entries: tuple[LogEntry, ...]
    #: What `after` must be to go on from here.
    next_after: int
    #: True when the run has ended and nothing follows.
    is_last: bool


def log_page(number: int, *, after: int, limit: int) -> LogPage:
    """Return the lines of a run that arrived after the line `after` (0 for all), at most `limit`.

    Raises:
        NotFoundError: There is no run of this number.
    """
    attempts, has_ended = _attempts(number)
    lines = LogLine.objects.filter(attempt__in=attempts, number__gt=min(max(after, 0), sql.LARGEST_NUMBER))
    found = list(lines.order_by("number")[: limit + 1])
    return _log_page(found[:limit], attempts, after=after, is_last=has_ended and len(found) <= limit)


def log_tail(number: int, *, limit: int) -> LogPage:
    """Return the last lines of a run, at most `limit`.

    Raises:
        NotFoundError: There is no run of this number.
    """
    attempts, has_ended = _attempts(number)
    found = list(LogLine.objects.filter(attempt__in=attempts).order_by("-number")[:limit])
    return _log_page(found[::-1], attempts, after=0, is_last=has_ended)


def _attempts(number: int) -> tuple[dict[int, Attempt], bool]:
    # Before the lines, so that "it has ended" is never newer than they are.
    status = Run.objects.filter(number=number).values_list("status", flat=True).first()
    if status is None:
        raise NotFoundError(f"there is no run {str(number)!r}")
    attempts = (
        Attempt.objects.filter(task__run=number)
        .select_related("task")
        .only("attempt_no", "task__name", "task__order_no", "task__position", "task__id")
    )
    return {attempt.number: attempt for attempt in attempts}, status in ENDED_RUN


def _log_page(lines: list[LogLine], attempts: dict[int, Attempt], *, after: int, is_last: bool) -> LogPage:
    entries = tuple(LogEntry(line=line, attempt=attempts[line.attempt_id]) for line in lines)
    return LogPage(entries=entries, next_after=lines[-1].number if lines else after, is_last=is_last)
