"""Errors of the API that Django or the router makes by itself, in the form that all of its errors have."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from shepherd.api.errors import CODES, Refusal, error_response

Handler = Callable[[HttpRequest], HttpResponseBase]

#: What the old endpoints say beside every error.
NO_SUCCESS: Final = {"Success": False}
#: Where addresses of the API begin, each with what its errors have beside them.
_BESIDE: Final[Mapping[str, Mapping[str, Any]]] = {"/api/": {}, "/transformer/": NO_SUCCESS}


class JsonErrors:
    """Turns an HTML or text error of an API address into JSON, with its `Allow` header kept."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        beside = next((fields for start, fields in _BESIDE.items() if request.path.startswith(start)), None)
        if beside is None or response.status_code < 400 or _is_json(response):
            return response
        return _as_json(response, beside)


def _is_json(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("application/json")


def _as_json(response: HttpResponseBase, beside: Mapping[str, Any]) -> HttpResponse:
    status = response.status_code
    refusal = Refusal(status=status, code=CODES.get(status, "error"), message=f"{response.reason_phrase}.")
    told = error_response(refusal, beside=beside)
    if "Allow" in response:
        told["Allow"] = response["Allow"]
    return told
