"""One table from what went wrong to what HTTP says of it."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException, UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from shepherd.errors import (
    ConflictError,
    DatabaseUnavailableError,
    Fault,
    InvalidInputError,
    NotFoundError,
    ShepherdError,
    TooLargeError,
    TransientError,
)

logger = logging.getLogger(__name__)

#: The first that fits counts.
_STATUS: Final[tuple[tuple[type[ShepherdError], int], ...]] = (
    (TooLargeError, 413),
    (InvalidInputError, 422),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TransientError, 503),
)
#: When a client may ask again what was unavailable, in seconds.
_RETRY_AFTER: Final = "1"

#: What a status that no error of ours stands for is called.
CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "too_many_requests",
    503: "unavailable",
}


def error_response(status: int, *, code: str, message: str, faults: Sequence[Fault] = ()) -> HttpResponse:
    """Return an error in the one form that all of them have."""
    shown = [{"path": fault.path, "reason": fault.reason} for fault in faults]
    response = JsonResponse({"error": {"code": code, "message": message, "faults": shown}}, status=status)
    if status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="shepherd"'
    if status == 503:
        response["Retry-After"] = _RETRY_AFTER
    return response


def install(api: NinjaAPI) -> None:
    """Have `api` answer with `error_response` whatever is raised, and with 500 only for what nobody foresaw."""
    for kind, handler in _HANDLERS.items():
        api.add_exception_handler(kind, handler)


def _ours(_request: HttpRequest, error: Any) -> HttpResponse:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        return _unforeseen(_request, error)
    faults = error.faults if isinstance(error, InvalidInputError) else ()
    return error_response(status, code=error.code, message=_summary(error), faults=faults)


def _summary(error: ShepherdError) -> str:
    if not isinstance(error, InvalidInputError):
        return str(error)
    first, *others = error.faults
    more = f" (and {len(others)} more)" if others else ""
    return f"{first}{more}"


def _wrong_parameters(_request: HttpRequest, error: Any) -> HttpResponse:
    # pydantic's place starts with where a parameter came from: ("query", "limit").
    faults = [Fault(".".join(str(part) for part in found["loc"][1:]), found["msg"]) for found in error.errors]
    return _ours(_request, InvalidInputError(faults))


def _plain(_request: HttpRequest, error: Any) -> HttpResponse:
    return error_response(error.status_code, code=CODES.get(error.status_code, "error"), message=str(error.message))


def _unauthorized(_request: HttpRequest, _error: Any) -> HttpResponse:
    message = "Send 'Authorization: Bearer <token>', or log in."
    return error_response(401, code="unauthorized", message=message)


def _too_big(request: HttpRequest, _error: Any) -> HttpResponse:
    return _ours(request, TooLargeError([Fault("", "is larger than a request may be")]))


def _unreadable(_request: HttpRequest, _error: Any) -> HttpResponse:
    return error_response(400, code="bad_request", message="The request can't be read.")


def _database(request: HttpRequest, error: Any) -> HttpResponse:
    logger.warning("api.database_unavailable", extra={"reason": error})
    return _ours(request, DatabaseUnavailableError("the database is unavailable or locked; try again"))


def _unforeseen(request: HttpRequest, error: Any) -> HttpResponse:
    logger.error("api.unforeseen", exc_info=error, extra={"method": request.method, "path": request.path})
    return error_response(500, code="internal", message="Something went wrong here; the server's log says what.")


_HANDLERS: Final[dict[type[Exception], Any]] = {
    ShepherdError: _ours,
    ValidationError: _wrong_parameters,
    AuthenticationError: _unauthorized,
    HttpError: _plain,
    RequestDataTooBig: _too_big,
    SuspiciousOperation: _unreadable,
    RawPostDataException: _unreadable,
    UnreadablePostError: _unreadable,
    OperationalError: _database,
    InterfaceError: _database,
    DatabaseError: _unforeseen,
    Exception: _unforeseen,
}
