"""Names of objects in a store: what they may be, and how they become claims and come back."""

import re
from typing import Final

from shepherd.errors import InvalidInputError, ProtocolError, StoreUnavailableError
from shepherd.wire.value import ClaimCheck

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_MAX_LENGTH: Final = 900
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def checked(key: str) -> str:
    """Return the key.

    Raises:
        InvalidInputError: It could lead out of the store.
    """
    if not _is_key(key):
        raise InvalidInputError.at(
            "key", f"{key!r} must be segments of letters, digits, '-', '_' and '.', joined by '/', none of only dots"
        )
    return key


def segment(name: str) -> str:
    """Return a file's name as one segment of a key: what a key can't hold becomes `_`."""
    fit = _UNFIT.sub("_", name)[-200:]
    return fit if fit.strip(".") else "_"


def claimed(claim: ClaimCheck, *, url: str) -> str:
    """Return the key of a claim that the store at `url` gave out.

    Raises:
        StoreUnavailableError: The claim is for another store, which this process doesn't see.
        ProtocolError: It isn't any store's claim.
    """
    prefix = f"{url.rstrip('/')}/"
    if not claim.uri.startswith(prefix):
        raise StoreUnavailableError(f"{claim.uri} isn't in the store that is seen here, {url} (SHEPHERD_STORE)")
    key = claim.uri.removeprefix(prefix)
    if not _is_key(key):
        raise ProtocolError(f"{claim.uri} is no address of an object")
    return key


def _is_key(key: str) -> bool:
    parts = key.split("/")
    return len(key) <= _MAX_LENGTH and all(_SEGMENT.fullmatch(part) and part.strip(".") for part in parts)
