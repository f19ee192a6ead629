"""The endpoints with which people take a run, or a project, in hand."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Header, Router, Status

from shepherd.api.asked import contexts_of, reason_of, sample_rows_of
from shepherd.api.auth import BearerToken, Session
from shepherd.api.body import read_optional_body
from shepherd.api.catalogue import ProjectOut
from shepherd.api.openapi import CONTEXTS, REASON, RERUN
from shepherd.api.schemas import AcceptedOut, ErrorOut, RunOut
from shepherd.pipelines import queries, services

router = Router(auth=[BearerToken(), Session()])

_REFUSALS: dict[int, Any] = dict.fromkeys((401, 404, 409, 413, 415, 422, 503), ErrorOut)


@router.post(
    "/runs/{run_id}/cancel",
    response={200: RunOut, **_REFUSALS},
    openapi_extra=REASON,
    summary="Cancel a run",
    url_name="cancel",
)
def cancel(request: HttpRequest, run_id: str) -> RunOut:
    """End a run now: its task is killed on whichever server it runs, later tasks stay pending.

    Cancelling once more changes nothing; 409 when the run has ended otherwise.
    """
    reason = reason_of(read_optional_body(request).document)
    number = queries.find_number(run_id)
    services.cancel(number, by=request.auth, reason=reason, now=_now())  # type: ignore[attr-defined]  # ninja's
    return _run(number)


@router.post(
    "/runs/{run_id}/resume",
    response={200: RunOut, **_REFUSALS},
    openapi_extra=CONTEXTS,
    summary="Resume a run",
    url_name="resume",
)
def resume(request: HttpRequest, run_id: str) -> RunOut:
    """Go on with a failed or cancelled run at the task where it stopped; what succeeded is not repeated.

    Contexts of tasks that have not succeeded may be corrected; the attempts before stay as they were. Resuming a run
    that is under way changes nothing; 409 when contexts were given with it, or when the run has succeeded.
    """
    contexts = contexts_of(read_optional_body(request).document)
    number = queries.find_number(run_id)
    services.resume(number, contexts=contexts, by=request.auth, now=_now())  # type: ignore[attr-defined]
    return _run(number)


@router.post(
    "/runs/{run_id}/rerun",
    response={202: AcceptedOut, **_REFUSALS},
    openapi_extra=RERUN,
    summary="Run a pipeline again",
    url_name="rerun",
)
def rerun(
    request: HttpRequest,
    response: HttpResponse,
    run_id: str,
    idempotency_key: Annotated[
        str | None, Header(description="Repeating a call with the same key and body answers with the first run.")
    ] = None,
) -> Status[AcceptedOut]:
    """Accept the pipeline of a run once more, from its first task, as a new run that names this one as its `origin`.

    It has the same tasks, policies and labels, and the contexts as they were corrected last. It is a sample if that run
    was, unless `sample_rows` says otherwise; null is all rows.
    """
    body = read_optional_body(request)
    number = queries.find_number(run_id)
    accepted = services.rerun(
        number,
        contexts=contexts_of(body.document, beside="sample_rows"),
        sample_rows=sample_rows_of(body.document),
        by=request.auth,  # type: ignore[attr-defined]
        now=_now(),
        idempotency_key=idempotency_key,
        body_sha256=hashlib.sha256(f"rerun {number} {body.sha256}".encode()).hexdigest(),
    )
    response["Location"] = reverse("api:run", args=[accepted.run.id])
    detail = queries.one_run(accepted.run.number, now=_now())
    return Status(202, AcceptedOut.of_accepted(detail, accepted.warnings))


@router.post(
    "/projects/{name}/pause",
    response={200: ProjectOut, **_REFUSALS},
    openapi_extra=REASON,
    summary="Pause a project",
    url_name="pause",
)
def pause(request: HttpRequest, name: str) -> ProjectOut:
    """Start no run of a project until it is unpaused. Runs that have started go on; pipelines are still accepted.

    A project that is paused already stays as it is.
    """
    reason = reason_of(read_optional_body(request).document)
    services.pause(name, by=request.auth, reason=reason, now=_now())  # type: ignore[attr-defined]
    return ProjectOut.of(queries.one_project(name))


@router.post(
    "/projects/{name}/unpause",
    response={200: ProjectOut, **_REFUSALS},
    summary="Unpause a project",
    url_name="unpause",
)
def unpause(request: HttpRequest, name: str) -> ProjectOut:  # noqa: ARG001  # ninja hands it to every view
    """Start the runs of a project again, in the order of their acceptance."""
    services.unpause(name)
    return ProjectOut.of(queries.one_project(name))


def _run(number: int) -> RunOut:
    return RunOut.of(queries.one_run(number, now=_now()))


def _now() -> datetime:
    return datetime.now(UTC)
