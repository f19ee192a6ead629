"""API tokens: shown once, kept as their SHA-256."""

import hashlib
import secrets
from typing import Final

from django.contrib.auth.models import User

from shepherd.pipelines.models import ApiToken

#: So that a token that leaked into a log or a repository is recognised as one.
_PREFIX: Final = "shp_"


def create_token(user: User, *, name: str) -> str:
    """Create a token and return it; it can't be read again."""
    token, sha256 = new_token()
    ApiToken.objects.create(user=user, name=name, sha256=sha256)
    return token


def new_token() -> tuple[str, str]:
    """Return a token that nobody has, and what is kept of it."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, _sha256(token)


def user_of(token: str) -> User | None:
    """Return whose token this is, None when it is nobody's or the user may not log in any more."""
    found = ApiToken.objects.select_related("user").filter(sha256=_sha256(token), user__is_active=True).first()
    return None if found is None else found.user


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
