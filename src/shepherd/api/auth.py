"""Who calls: the owner of a token, or whoever is logged in."""

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer
from ninja.security.apikey import APIKeyCookie, APIKeyHeader
from ninja.utils import check_csrf

from shepherd.pipelines.tokens import user_of


class BearerToken(HttpBearer):
    """`Authorization: Bearer <token>`; no cookie is involved, so no CSRF check is either."""

    def authenticate(self, _request: HttpRequest, token: str) -> User | None:
        return user_of(token)


class PlainToken(APIKeyHeader):
    """`Authorization: Bearer <token>`, or the token alone, as callers of the old endpoints send it."""

    param_name = "Authorization"

    def authenticate(self, _request: HttpRequest, key: str | None) -> User | None:
        scheme, _, token = (key or "").partition(" ")
        return user_of(token if scheme.lower() == "bearer" else scheme)


class Session(APIKeyCookie):
    """Whoever is logged in to the pages; a call that changes something needs the CSRF token as well."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> User | None:
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return None
        # Only now: a stranger without either is told 401, not that a CSRF token is missing.
        if check_csrf(request):
            raise HttpError(403, "the CSRF token is missing or wrong")
        return user

    def authenticate(self, request: HttpRequest, _key: str | None) -> User | None:
        return self(request)
