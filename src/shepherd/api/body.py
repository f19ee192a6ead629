"""Reading a request's body: bounded before it is read, strict when it is parsed."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest
from ninja.errors import HttpError

from shepherd.errors import Fault, InvalidInputError, TooLargeError
from shepherd.wire import strict_json

BODY_LIMIT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A JSON document and the checksum of its bytes as sent."""

    document: Any
    sha256: str


def read_body(request: HttpRequest) -> Body:
    """Return the request's JSON document, whatever content type it claims: `curl -d` claims a form.

    Raises:
        TooLargeError: It is over 1 MiB. Decided by its declared length, or after reading that much.
        InvalidInputError: It isn't strict JSON.
        HttpError: 415 for a compressed body: nothing here inflates what a stranger sent.
    """
    content = _read(request)
    if not content:
        raise InvalidInputError.at("", "is empty; a JSON document is wanted")
    return Body(document=_parse(content), sha256=hashlib.sha256(content).hexdigest())


def _read(request: HttpRequest) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise HttpError(415, f"the body must not be compressed, is {encoding[:50]!r}")
    if _declared_length(request) > BODY_LIMIT:
        raise _too_large()
    content = request.read(BODY_LIMIT + 1)
    if len(content) > BODY_LIMIT:
        raise _too_large()
    return content


def read_optional_body(request: HttpRequest) -> Body:
    """Return the request's JSON document as `read_body` does; an empty body is an empty object."""
    content = _read(request)
    return Body(document=_parse(content) if content else {}, sha256=hashlib.sha256(content).hexdigest())


def _declared_length(request: HttpRequest) -> int:
    text = request.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _too_large() -> TooLargeError:
    return TooLargeError([Fault("", f"is larger than {BODY_LIMIT} bytes")])


def _parse(content: bytes) -> Any:
    try:
        return strict_json.loads(content)
    except strict_json.StrictJsonError as error:
        raise InvalidInputError(error.faults) from None
