"""The endpoints of the system that the seed describes, in its own words: `/transformer/…`."""

from datetime import UTC, datetime
from typing import Annotated, Any

from django.http import HttpRequest
from django.urls import path
from ninja import Header, NinjaAPI, Query, Router

from shepherd.api import errors
from shepherd.api.auth import PlainToken, Session
from shepherd.api.body import read_body
from shepherd.api.middleware import NO_SUCCESS
from shepherd.api.old_answers import full_pipeline, listed_pipeline, transformer
from shepherd.api.old_requests import parse_clone, parse_create, parse_update
from shepherd.pipelines import queries, services

router = Router(auth=[PlainToken(), Session()])

Before = Annotated[int | None, Query(ge=0)]


@router.post("/pipe_create")
def pipe_create(request: HttpRequest, idempotency_key: Annotated[str | None, Header()] = None) -> dict[str, Any]:
    body = read_body(request)
    asked = parse_create(body.document)
    accepted = services.accept(
        asked.spec,
        by=request.auth,  # type: ignore[attr-defined]  # ninja's
        now=_now(),
        idempotency_key=idempotency_key,
        body_sha256=body.sha256,
        labels=asked.labels,
    )
    return _success(accepted.run.number)


@router.post("/pipe_update")
def pipe_update(request: HttpRequest) -> dict[str, Any]:
    asked = parse_update(read_body(request).document)
    accepted = services.append_tasks(
        asked.number,
        asked.tasks,
        labels=asked.labels,
        by=request.auth,  # type: ignore[attr-defined]
        now=_now(),
    )
    number = accepted.run.number
    message = (
        f"A pipeline never changes once it is accepted: {number} is a new one that goes on from where {asked.number} "
        "ended, with the tasks that did not succeed and then the appended ones."
    )
    return {**_success(number), "message": message}


@router.post("/clone_pipe")
def clone_pipe(request: HttpRequest) -> dict[str, Any]:
    asked = parse_clone(read_body(request).document)
    accepted = services.run_again(
        asked.number,
        labels=asked.labels,
        by=request.auth,  # type: ignore[attr-defined]
        now=_now(),
    )
    number = accepted.run.number
    return {**_success(number), "message": f"{number} is a new pipeline with the tasks of {asked.number}; it runs now."}


@router.get("/pipe_list")
def pipe_list(
    request: HttpRequest,  # noqa: ARG001  # ninja hands it to every view
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
) -> dict[str, Any]:
    page = queries.outlines(before=before, limit=limit)
    result = {str(run.number): listed_pipeline(run) for run in page.runs}
    return {**_success(result), "next_before": page.next_before}


# By POST as well, since the old front end asks so.
@router.api_operation(["GET", "POST"], "/pipeline_filter")
def pipeline_filter(
    request: HttpRequest,  # noqa: ARG001
    dataset_id: Annotated[str, Query(alias="datasetId", min_length=1, max_length=200)],
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    page = queries.outlines(label=("dataset_id", dataset_id), has_details=True, before=before, limit=limit)
    return {**_success([full_pipeline(run) for run in page.runs]), "next_before": page.next_before}


@router.get("/trans_list")
def trans_list(request: HttpRequest) -> list[dict[str, Any]]:  # noqa: ARG001
    return [transformer(entry) for entry in queries.catalogue(now=_now())]


def _success(result: Any) -> dict[str, Any]:
    return {"result": result, "Success": True}


def _now() -> datetime:
    return datetime.now(UTC)


def make_api() -> NinjaAPI:
    api = NinjaAPI(title="Shepherd, as it was", urls_namespace="transformer", docs_url=None, openapi_url=None)
    api.add_router("", router)
    errors.install(api, beside=NO_SUCCESS)
    return api


urlpatterns = [path("", make_api().urls)]
