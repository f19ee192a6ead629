"""What a browser may do with our pages."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest
from django.http.response import HttpResponseBase

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Pages of others, which bring styles of their own within them.
_NOT_OURS: Final = ("/admin/", "/api/")


class ContentSecurityPolicy:
    """Lets our pages load nothing but our own files, whatever got into them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if not request.path.startswith(_NOT_OURS):
            response["Content-Security-Policy"] = _POLICY
        return response
