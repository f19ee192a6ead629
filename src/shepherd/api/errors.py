"""One table from what went wrong to what HTTP says of it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
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
    NotAcceptableError,
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
    (NotAcceptableError, 406),
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
    406: "not_acceptable",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "too_many_requests",
    503: "unavailable",
}


#: What all errors have beside the error itself, where nothing else is asked for.
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a caller is told instead of an answer."""

    status: int
    code: str
    message: str
    faults: tuple[Fault, ...] = ()


def error_response(refusal: Refusal, *, beside: Mapping[str, Any] = _NOTHING) -> HttpResponse:
    """Return an error in the one form that all of them have, with the fields of `beside` next to it."""
    faults = [{"path": fault.path, "reason": fault.reason} for fault in refusal.faults]
    error = {"code": refusal.code, "message": refusal.message, "faults": faults}
    response = JsonResponse({"error": error, **beside}, status=refusal.status)
    if refusal.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="shepherd"'
    if refusal.status == 503:
        response["Retry-After"] = _RETRY_AFTER
    return response


def install(api: NinjaAPI, *, beside: Mapping[str, Any] = _NOTHING) -> None:
    """Have `api` answer with `error_response` whatever is raised, and with 500 only for what nobody foresaw."""
    for kind, handler in _HANDLERS.items():
        api.add_exception_handler(kind, _answering(handler, beside))


def _answering(handler: "Handler", beside: Mapping[str, Any]) -> Callable[[HttpRequest, Any], HttpResponse]:
    return lambda request, error: error_response(handler(request, error), beside=beside)


def _ours(_request: HttpRequest, error: Any) -> Refusal:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        return _unforeseen(_request, error)
    faults = error.faults if isinstance(error, InvalidInputError) else ()
    return Refusal(status=status, code=error.code, message=_summary(error), faults=faults)


def _summary(error: ShepherdError) -> str:
    if not isinstance(error, InvalidInputError):
        return str(error)
    first, *others = error.faults
    more = f" (and {len(others)} more)" if others else ""
    return f"{first}{more}"


def _wrong_parameters(_request: HttpRequest, error: Any) -> Refusal:
    # pydantic's place starts with where a parameter came from: ("query", "limit").
    faults = [Fault(".".join(str(part) for part in found["loc"][1:]), found["msg"]) for found in error.errors]
    return _ours(_request, InvalidInputError(faults))


def _plain(_request: HttpRequest, error: Any) -> Refusal:
    code = CODES.get(error.status_code, "error")
    return Refusal(status=error.status_code, code=code, message=str(error.message))


def _unauthorized(_request: HttpRequest, _error: Any) -> Refusal:
    message = "Send 'Authorization: Bearer <token>', or log in."
    return Refusal(status=401, code="unauthorized", message=message)


def _too_big(request: HttpRequest, _error: Any) -> Refusal:
    return _ours(request, TooLargeError([Fault("", "is larger than a request may be")]))


def _unreadable(_request: HttpRequest, _error: Any) -> Refusal:
    return Refusal(status=400, code="bad_request", message="The request can't be read.")


def _database(request: HttpRequest, error: Any) -> Refusal:
    logger.warning("api.database_unavailable", extra={"reason": error})
    return _ours(request, DatabaseUnavailableError("the database is unavailable or locked; try again"))


def _unforeseen(request: HttpRequest, error: Any) -> Refusal:
    logger.error("api.unforeseen", exc_info=error, extra={"method": request.method, "path": request.path})
    return Refusal(status=500, code="internal", message="Something went wrong here; the server's log says what.")


Handler = Callable[[HttpRequest, Any], Refusal]
_HANDLERS: Final[dict[type[Exception], Handler]] = {
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
