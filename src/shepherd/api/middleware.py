"""Errors under `/api/` that Django or the router makes by itself, in the form that all of the API's errors have."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from shepherd.api.errors import CODES, error_response

Handler = Callable[[HttpRequest], HttpResponseBase]


class JsonErrors:
    """Turns an HTML or text error of an API address into JSON, with its `Allow` header kept."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if not request.path.startswith("/api/") or response.status_code < 400 or _is_json(response):
            return response
        return _as_json(response)


def _is_json(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("application/json")


def _as_json(response: HttpResponseBase) -> HttpResponse:
    status = response.status_code
    told = error_response(status, code=CODES.get(status, "error"), message=f"{response.reason_phrase}.")
    if "Allow" in response:
        told["Allow"] = response["Allow"]
    return told
