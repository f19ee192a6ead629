"""The endpoints that give out what a task returned: its card, its data, its rows."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Final, TypeVar
from urllib.parse import quote

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from shepherd.api.auth import BearerToken, Session
from shepherd.api.forms import FORMS, plain, reading, table_of
from shepherd.api.parts import part_of
from shepherd.api.schemas import ColumnOut, ErrorOut, RowsOut
from shepherd.api.turns import Turns
from shepherd.errors import Fault, InvalidInputError, ProtocolError, StoreUnavailableError
from shepherd.pipelines import queries
from shepherd.store import open_store
from shepherd.store.key import segment
from shepherd.wire import strict_json
from shepherd.wire.media import BYTES
from shepherd.wire.value import ClaimCheck, Inline, Value
from shepherd.worker import tables
from shepherd.worker.card import shape
from shepherd.worker.desk import Desk

router = Router(auth=[BearerToken(), Session()])

_Response = TypeVar("_Response", bound=HttpResponseBase)

MOST_ROWS: Final = 1_000
#: Of rows that are answered in one piece.
_MOST_BYTES: Final = 32 * 1024**2
#: Of the eight threads that the server has, some stay for whoever posts a pipeline meanwhile.
_TURNS: Final = Turns(4, patience_s=3)
_MEDIA_TYPE: Final = re.compile(r"[!-~][ -~]{0,199}")
_REFUSALS: dict[int, Any] = dict.fromkeys((401, 404, 406, 409, 422, 503), ErrorOut)
_TASK: Final = "/runs/{run_id}/tasks/{task}"
_Part = Annotated[
    str, Query(description="Which of several values is meant: its name, its number from 0, or a JSON pointer to it.")
]
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
    part: _Part = "",
) -> Any:
    """Give out what a task returned, as a file; 406 for what is no table in the form of one."""
    if format and format not in FORMS:
        raise InvalidInputError.at("format", f"must be one of {', '.join(FORMS)}, or left out; is {format[:100]!r}")
    result = _result(run_id, task, part)
    if isinstance(result.value, Inline) and not format:
        return _inline(result, part=part)
    with _TURNS.one(), _desk() as desk:
        # What is open can be read when its name is gone: so nothing is left, whatever becomes of this process.
        file, media_type, suffix = _opened(result.value, format, desk)
    # The server sends a file without holding one of its threads for it, however slowly it is taken.
    return _as_file(FileResponse(file, content_type=media_type), result, suffix, part=part)


def _opened(value: Value, form: str, desk: Desk) -> tuple[IO[bytes], str, str]:
    if not form:
        assert isinstance(value, ClaimCheck)
        file = desk.fetch(value).open("rb")
        media_type = value.media_type if _MEDIA_TYPE.fullmatch(value.media_type) else BYTES
        return file, media_type, PurePosixPath(value.uri).suffix
    path = desk.path("out")
    with reading():
        FORMS[form].write(table_of(value, desk), path)
    return path.open("rb"), FORMS[form].media_type, f".{form}"


@router.get(f"{_TASK}/rows", response={200: RowsOut, **_REFUSALS}, summary="Read rows of a table", url_name="rows")
def rows(
    request: HttpRequest,
    run_id: str,
    task: str,
    columns: Annotated[str, Query(description="Names, with commas between them, or given several times.")] = "",  # noqa: ARG001  # read below, all of them
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    part: _Part = "",
) -> RowsOut:
    """Read some rows of the table that a task returned, in their order; 406 for what is no table."""
    result = _result(run_id, task, part)
    with _TURNS.one(), reading(), _desk() as desk:
        frame = table_of(result.value, desk, rows=offset + limit)
        existing = frame.collect_schema()
        names = _wanted(request.GET.getlist("columns"), existing.names())
        found = frame.select(names).slice(offset, limit).collect(engine="streaming")
        if found.estimated_size() > _MOST_BYTES:
            raise InvalidInputError.at("limit", f"these rows have more than {_MOST_BYTES} bytes: ask for fewer")
        return RowsOut(
            columns=[ColumnOut(name=name, type=str(existing[name])) for name in names],
            rows=[[plain(value) for value in row] for row in tables.rows_of(found)],
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


def _result(run_id: str, task: str, part: str = "") -> queries.TaskResult:
    result = queries.one_result(queries.find_number(run_id), task)
    if not part:
        return result
    return replace(result, value=part_of(result.value, part, open_store(settings.SHEPHERD.store_url).read), card=None)


@contextmanager
def _desk() -> Iterator[Desk]:
    with (
        tempfile.TemporaryDirectory(prefix="shepherd-out-") as folder,
        Desk(open_store(settings.SHEPHERD.store_url), prefix="out", scratch=Path(folder)) as desk,
    ):
        try:
            yield desk
        except ProtocolError as error:
            raise StoreUnavailableError(f"what lies in the store isn't what the task left there: {error}") from error


def _inline(result: queries.TaskResult, *, part: str) -> HttpResponse:
    assert isinstance(result.value, Inline)
    value = result.value.value
    if isinstance(value, str):
        return _as_file(HttpResponse(value, content_type="text/plain; charset=utf-8"), result, ".txt", part=part)
    return _as_file(HttpResponse(strict_json.dumps(value), content_type="application/json"), result, ".json", part=part)


def _as_file(response: _Response, result: queries.TaskResult, suffix: str, *, part: str) -> _Response:
    """Have a browser save it: what a task returned is never a page of this server's."""
    named = f"-{segment(part.removeprefix('/'))}" if part else ""
    name = f"run-{result.task.run_id}-{result.task.name}{named}{suffix}"
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
