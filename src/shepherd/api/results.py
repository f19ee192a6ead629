"""The endpoints that give out what a task returned: its card, its data, its rows."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from shepherd.api.auth import BearerToken, Session
from shepherd.api.forms import FORMS, Pieces, plain, table_of
from shepherd.api.schemas import ColumnOut, ErrorOut, RowsOut
from shepherd.errors import Fault, InvalidInputError, ProtocolError, StoreUnavailableError
from shepherd.pipelines import queries
from shepherd.store import open_store
from shepherd.wire import strict_json
from shepherd.wire.value import ClaimCheck, Inline
from shepherd.worker.card import shape

router = Router(auth=[BearerToken(), Session()])

_Response = TypeVar("_Response", bound=HttpResponseBase)

MOST_ROWS: Final = 1_000
_REFUSALS: dict[int, Any] = dict.fromkeys((401, 404, 406, 409, 422, 503), ErrorOut)
_TASK: Final = "/runs/{run_id}/tasks/{task}"
_FILE: Final = {"200": {"description": "The file.", "content": {"*/*": {}}}}


@router.get(
    f"{_TASK}/card",
    response={200: dict[str, Any], **_REFUSALS},
    summary="Look at a task's data card",
    url_name="card",
)
def card(request: HttpRequest, run_id: str, task: str) -> dict[str, Any]:  # noqa: ARG001  # ninja hands it to every view
    """Say what a task returned: rows, columns and their types, first rows, size, what changed against its input.

    `task` is its `order_no` or name if that means one task, or its UUID.
    """
    return card_of(_result(run_id, task))


@router.get(
    f"{_TASK}/data",
    response=_REFUSALS,
    openapi_extra={"responses": _FILE},
    summary="Download what a task returned",
    url_name="data",
)
def data(
    request: HttpRequest,  # noqa: ARG001
    run_id: str,
    task: str,
    format: Annotated[  # noqa: A002  # its name in the address
        str, Query(description="`csv`, `json`, `parquet` or `xlsx` for a table; as it is stored, if left out.")
    ] = "",
) -> Any:
    """Give out what a task returned, as a file; 406 for what is no table in the form of one."""
    if format and format not in FORMS:
        raise InvalidInputError.at("format", f"must be one of {', '.join(FORMS)}, or left out; is {format[:100]!r}")
    result = _result(run_id, task)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shepherd-out-")))
        if format:
            path, media_type, suffix = folder / "out", FORMS[format].media_type, f".{format}"
            FORMS[format].write(table_of(result.value, _fetcher(folder)), path)
        elif isinstance(result.value, Inline):
            return _inline(result)
        else:
            path, media_type = _fetcher(folder)(result.value), result.value.media_type
            suffix = PurePosixPath(result.value.uri).suffix
        # From here on the response closes it: the folder stays until the last piece is out.
        response = StreamingHttpResponse(Pieces(path.open("rb"), done=stack.pop_all().close), content_type=media_type)
        response["Content-Length"] = path.stat().st_size
        return _as_file(response, result, suffix)


@router.get(f"{_TASK}/rows", response={200: RowsOut, **_REFUSALS}, summary="Read rows of a table", url_name="rows")
def rows(
    request: HttpRequest,
    run_id: str,
    task: str,
    columns: Annotated[str, Query(description="Names, with commas between them, or given several times.")] = "",  # noqa: ARG001  # read below, all of them
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> RowsOut:
    """Read some rows of the table that a task returned, in their order; 406 for what is no table."""
    result = _result(run_id, task)
    with tempfile.TemporaryDirectory(prefix="shepherd-out-") as folder:
        frame = table_of(result.value, _fetcher(Path(folder)))
        existing = frame.collect_schema()
        names = _wanted(request.GET.getlist("columns"), existing.names())
        found = frame.select(names).slice(offset, limit).collect(engine="streaming")
        return RowsOut(
            columns=[ColumnOut(name=name, type=str(existing[name])) for name in names],
            rows=[[plain(value) for value in row] for row in found.iter_rows()],
            offset=offset,
            limit=limit,
            total=(result.card or {}).get("rows"),
        )


def card_of(result: queries.TaskResult) -> dict[str, Any]:
    """Return the card that the worker left, or what can be said without one."""
    if result.card is not None:
        return result.card
    value = result.value
    if isinstance(value, ClaimCheck):
        return {"kind": "file", "size": value.size, "sha256": value.sha256, "media_type": value.media_type}
    if value.value is None:
        return {"kind": "nothing"}
    size = len(strict_json.dumps(value.value))
    return {"kind": "json", **shape(value.value), "size": size, "media_type": "application/json"}


def _result(run_id: str, task: str) -> queries.TaskResult:
    return queries.one_result(queries.find_number(run_id), task)


def _fetcher(folder: Path) -> Callable[[ClaimCheck], Path]:
    def fetch(claim: ClaimCheck) -> Path:
        try:
            return open_store(settings.SHEPHERD.store_url).fetch(claim, into=folder)
        except ProtocolError as error:
            raise StoreUnavailableError(f"what lies in the store isn't what the task left there: {error}") from error

    return fetch


def _inline(result: queries.TaskResult) -> HttpResponse:
    assert isinstance(result.value, Inline)
    value = result.value.value
    if isinstance(value, str):
        return _as_file(HttpResponse(value, content_type="text/plain; charset=utf-8"), result, ".txt")
    return _as_file(HttpResponse(strict_json.dumps(value), content_type="application/json"), result, ".json")


def _as_file(response: _Response, result: queries.TaskResult, suffix: str) -> _Response:
    """Have a browser save it: what a task returned is never a page of this server's."""
    name = f"run-{result.task.run_id}-{result.task.name}{suffix}"
    response["Content-Disposition"] = f'attachment; filename="{quote(name)}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


def _wanted(given: list[str], existing: list[str]) -> list[str]:
    names = [name for text in given for name in ([text] if text in existing else text.split(",")) if name]
    names = list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in existing]:
        there = ", ".join(map(repr, existing[:50])) + (" …" if len(existing) > 50 else "")
        raise InvalidInputError(
            Fault("columns", f"there is no column {name[:100]!r}; there are {there}") for name in unknown[:20]
        )
    return names or existing
