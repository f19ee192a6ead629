"""What the buttons on a run's page do: each asks one of the services and shows the page again."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from shepherd.errors import ConflictError, Fault, InvalidInputError, NotFoundError, ShepherdError, TransientError
from shepherd.pipelines import queries, services
from shepherd.ui.access import logged_in
from shepherd.ui.views import Refused, run_page
from shepherd.wire import strict_json

#: Does what is asked for, and returns the number of the run to be shown.
_Act = Callable[[HttpRequest, int, User], int]
#: What the page's buttons ask for: all rows, or so many.
_SAMPLES: Final = frozenset({"0", "1000"})
_STATUS: Final[tuple[tuple[type[ShepherdError], int], ...]] = (
    (InvalidInputError, 422),
    (ConflictError, 409),
    (TransientError, 503),
)


def _button(act: _Act) -> Callable[..., HttpResponseBase]:
    @require_http_methods(["GET", "HEAD", "POST"])
    @logged_in
    def view(request: HttpRequest, number: int) -> HttpResponse:
        # Led here by a login that came in between: only a press of the button does something.
        if request.method != "POST":
            return redirect("run", number=number)
        user: Any = request.user
        try:
            return redirect("run", number=act(request, number, user))
        except (NotFoundError, OverflowError) as error:
            raise Http404 from error
        except ShepherdError as error:
            return _refused(request, number, error)

    return view


def _refused(request: HttpRequest, number: int, error: ShepherdError) -> HttpResponse:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    if status is None:
        raise error
    faults = error.faults if isinstance(error, InvalidInputError) else (Fault("", str(error)),)
    refused = Refused(faults=faults, context=request.POST.get("context"))
    return run_page(request, number, refused=refused, status=status)


def _cancel(_request: HttpRequest, number: int, by: User) -> int:
    services.cancel(number, by=by, now=_now())
    return number


def _resume(request: HttpRequest, number: int, by: User) -> int:
    services.resume(number, contexts=_corrected(request, number), by=by, now=_now())
    return number


def _rerun(request: HttpRequest, number: int, by: User) -> int:
    once, rows = request.POST.get("once", ""), request.POST.get("sample_rows", "")
    accepted = services.rerun(
        number,
        contexts={},
        sample_rows=int(rows) if rows in _SAMPLES else None,
        by=by,
        now=_now(),
        # Pressed twice in a hurry, it is one run.
        idempotency_key=f"page {once} {rows}".strip() if once else None,
        body_sha256=hashlib.sha256(f"rerun {number} {rows}".encode()).hexdigest(),
    )
    return accepted.run.number


def _pause(_request: HttpRequest, number: int, by: User) -> int:
    services.pause(_project(number), by=by, reason="", now=_now())
    return number


def _unpause(_request: HttpRequest, number: int, _by: User) -> int:
    services.unpause(_project(number))
    return number


def _project(number: int) -> str:
    return queries.one_run(number, now=_now()).run.project


def _corrected(request: HttpRequest, number: int) -> dict[str, Any]:
    """Return the context in the page's field under its task's key; nothing if it stands as it was."""
    text = request.POST.get("context")
    detail = queries.one_run(number, now=_now())
    task, key = detail.stopped_task, detail.correction_key
    if text is None or task is None or key is None:
        return {}
    try:
        context = strict_json.loads(text)
    except strict_json.StrictJsonError as error:
        path = f"contexts.{key}"
        faults = [Fault(f"{path}.{fault.path}" if fault.path else path, fault.reason) for fault in error.faults]
        raise InvalidInputError(faults) from None
    # As texts: to Python, `1` and `true` are equal.
    is_changed = strict_json.dumps(context) != strict_json.dumps(task.effective_context)
    return {key: context} if is_changed else {}


def _now() -> datetime:
    return datetime.now(UTC)


cancel = _button(_cancel)
resume = _button(_resume)
rerun = _button(_rerun)
pause = _button(_pause)
unpause = _button(_unpause)
