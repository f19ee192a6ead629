"""The API's endpoints: each translates, none decides."""

from datetime import UTC, datetime
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Header, NinjaAPI, Query, Router, Status

from shepherd import __version__
from shepherd.api import errors, handles, results
from shepherd.api.auth import BearerToken, Session
from shepherd.api.body import read_body
from shepherd.api.catalogue import CatalogueOut, ProjectOut
from shepherd.api.openapi import SUBMIT
from shepherd.api.schemas import AcceptedOut, ErrorOut, LogPageOut, RunOut, RunPageOut
from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import queries, services

_DESCRIPTION = """Post a pipeline: its tasks run one after another, on whichever server has a worker for them.

**Who calls** is told by `Authorization: Bearer <token>` (made with `manage.py create_token USERNAME`, or in the
admin), or by the session of the pages.

**Errors** have one form: `{"error": {"code", "message", "faults": [{"path", "reason"}]}}`. 422 names every field at
fault; 503 is worth another try."""

router = Router(auth=[BearerToken(), Session()])

_REFUSALS: dict[int, Any] = {401: ErrorOut, 503: ErrorOut}
_NO_SUCH_RUN: dict[int, Any] = {**_REFUSALS, 404: ErrorOut}


@router.post(
    "/runs",
    response={202: AcceptedOut, **_REFUSALS, 409: ErrorOut, 413: ErrorOut, 415: ErrorOut, 422: ErrorOut},
    openapi_extra=SUBMIT,
    summary="Submit a pipeline",
    url_name="submit",
)
def submit(
    request: HttpRequest,
    response: HttpResponse,
    idempotency_key: Annotated[
        str | None, Header(description="Repeating a call with the same key and body answers with the first run.")
    ] = None,
) -> Status[AcceptedOut]:
    """Accept a pipeline and answer with its run, which starts as soon as the Task Publisher sees it."""
    body = read_body(request)
    accepted = services.accept(
        parse_pipeline(body.document),
        by=request.auth,  # type: ignore[attr-defined]  # ninja's
        now=_now(),
        idempotency_key=idempotency_key,
        body_sha256=body.sha256,
    )
    response["Location"] = reverse("api:run", args=[accepted.run.id])
    detail = queries.one_run(accepted.run.number, now=_now())
    return Status(202, AcceptedOut.of_accepted(detail, accepted.warnings))


@router.get("/runs", response={200: RunPageOut, **_REFUSALS, 422: ErrorOut}, summary="List runs", url_name="runs")
def list_runs(
    request: HttpRequest,  # noqa: ARG001  # ninja hands it to every view
    status: Annotated[str, Query(description="Only runs of this status.")] = "",
    project: Annotated[str, Query(description="Only runs of this project.")] = "",
    name: Annotated[str, Query(description="Only runs whose pipeline has exactly this name.")] = "",
    text: Annotated[str, Query(description="A part of the pipeline's or of a task's name, or a number.")] = "",
    before: Annotated[
        int | None, Query(description="Only runs with a smaller number; pages go backwards.", ge=0)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RunPageOut:
    """List runs, the newest first, with their tasks in brief."""
    wanted = queries.RunFilter(status=status, project=project, name=name, text=text)
    return RunPageOut.of(queries.list_runs(wanted, before=before, limit=limit, now=_now()))


@router.get("/runs/{run_id}", response={200: RunOut, **_NO_SUCH_RUN}, summary="Look at a run", url_name="run")
def one_run(request: HttpRequest, run_id: str) -> RunOut:  # noqa: ARG001
    """Show a run, found by its UUID or by its number, with its tasks and their attempts."""
    return RunOut.of(queries.one_run(queries.find_number(run_id), now=_now()))


@router.get(
    "/runs/{run_id}/logs",
    response={200: LogPageOut, **_NO_SUCH_RUN, 422: ErrorOut},
    summary="Read a run's log",
    url_name="logs",
)
def logs(
    request: HttpRequest,  # noqa: ARG001
    run_id: str,
    after: Annotated[int, Query(description="`next_after` of the page before; 0 for the first.", ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> LogPageOut:
    """Read what the run's tasks logged and printed. Ask again with `next_after` until `is_last`."""
    return LogPageOut.of(queries.log_page(queries.find_number(run_id), after=after, limit=limit))


@router.get("/projects", response={200: list[ProjectOut], **_REFUSALS}, summary="List projects", url_name="projects")
def projects(request: HttpRequest) -> list[ProjectOut]:  # noqa: ARG001
    """List the projects of this server."""
    return [ProjectOut.of(project) for project in queries.projects()]


@router.get("/catalogue", response={200: list[CatalogueOut], **_REFUSALS}, summary="List tasks", url_name="catalogue")
def catalogue(request: HttpRequest) -> list[CatalogueOut]:  # noqa: ARG001
    """List every task that a worker ever announced: its context's schema, and who serves it now."""
    return [CatalogueOut.of(entry) for entry in queries.catalogue(now=_now())]


def _now() -> datetime:
    return datetime.now(UTC)


def make_api() -> NinjaAPI:
    api = NinjaAPI(
        title="Shepherd",
        version=__version__,
        description=_DESCRIPTION,
        urls_namespace="api",
        docs_url="/docs",
        openapi_url="/openapi.json",
    )
    api.add_router("/v1", router, tags=["v1"])
    api.add_router("/v1", handles.router, tags=["v1"])
    api.add_router("/v1", results.router, tags=["v1"])
    errors.install(api)
    return api
