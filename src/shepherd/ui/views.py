"""The pages: each translates rows into HTML, none decides."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe

from shepherd.domain.status import ENDED_RUN, RunStatus
from shepherd.errors import Fault, InvalidInputError, NotFoundError
from shepherd.pipelines import queries
from shepherd.ui.access import logged_in

_RUNS_A_PAGE: Final = 25
_LINES_AT_ONCE: Final = 500
#: How often a page looks again: while something moves, and while nothing does.
_LIVE: Final = "every 2s"
_IDLE: Final = "every 10s"


@require_safe
@logged_in
def runs(request: HttpRequest) -> HttpResponse:
    wanted = queries.RunFilter(**{name: request.GET.get(name, "").strip() for name in ("status", "project", "text")})
    now = datetime.now(UTC)
    try:
        page = queries.list_runs(wanted, before=_number(request.GET.get("before")), limit=_RUNS_A_PAGE, now=now)
    except InvalidInputError as error:
        raise Http404 from error
    is_moving = any(summary.run.status not in ENDED_RUN for summary in page.runs)
    shown = {
        "page": page,
        "wanted": wanted,
        "is_filtered": any((wanted.status, wanted.project, wanted.text)),
        "now": now,
    }
    more = {
        "statuses": list(RunStatus),
        "projects": [state.project.key for state in queries.projects()],
        "is_first_page": "before" not in request.GET,
    }
    return _live(
        request, "ui/runs.html", part="ui/_runs.html", shown={**shown, **more}, every=_LIVE if is_moving else _IDLE
    )


@require_safe
@logged_in
def run(request: HttpRequest, number: int) -> HttpResponse:
    return run_page(request, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What was asked for with a button, and why it wasn't done."""

    faults: tuple[Fault, ...]
    #: What stood in the field of the context; None where there was none.
    context: str | None


def run_page(request: HttpRequest, number: int, *, refused: Refused | None = None, status: int = 200) -> HttpResponse:
    """Return a run's page, or its live part; with what was refused, if something was."""
    now = datetime.now(UTC)
    try:
        detail = queries.one_run(number, now=now)
    except (NotFoundError, OverflowError) as error:
        raise Http404 from error
    shown = {"detail": detail, "run": detail.run, "history": _history(detail), "now": now, "refused": refused}
    shown["pause"] = queries.pause_of(detail.run.project)
    more = {} if _is_part(request) else {"log": queries.log_tail(number, limit=_LINES_AT_ONCE), "once": uuid4().hex}
    every = "" if detail.has_ended else _LIVE
    page = _live(request, "ui/run.html", part="ui/_run.html", shown={**shown, **more}, every=every)
    page.status_code = status if page.status_code == 200 else page.status_code
    return page


def _history(detail: queries.RunDetail) -> list[dict[str, Any]]:
    names = {task.number: task.name for task in detail.tasks}
    return [{"change": change, "what": names.get(change.task_id or 0, "run")} for change in detail.changes]


@require_safe
@logged_in
def run_log(request: HttpRequest, number: int) -> HttpResponse:
    after = _number(request.GET.get("after")) or 0
    try:
        page = queries.log_page(number, after=after, limit=_LINES_AT_ONCE)
    except (NotFoundError, OverflowError) as error:
        raise Http404 from error
    # 204 leaves the page, and what is selected in it, as it is; htmx asks again.
    if not page.entries and not page.is_last:
        return HttpResponse(status=204)
    return render(request, "ui/_log.html", {"log": page, "number": number})


def _live(request: HttpRequest, whole: str, *, part: str, shown: dict[str, Any], every: str) -> HttpResponse:
    """Render a part that looks after itself: alone when htmx asks for it, else within its whole page."""
    inner = render_to_string(part, shown, request=request)
    seen = hashlib.sha256(inner.encode()).hexdigest()[:16]
    if _is_part(request) and request.GET.get("seen") == seen:
        return HttpResponse(status=204)
    asked = request.GET.copy()
    asked["seen"] = seen
    live = {
        "inner": mark_safe(inner),  # noqa: S308  # a template's output, escaped by it
        "address": f"{request.path}?{asked.urlencode()}",
        "every": every,
    }
    return render(request, "ui/_live.html" if _is_part(request) else whole, {**shown, "live": live})


def _is_part(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
