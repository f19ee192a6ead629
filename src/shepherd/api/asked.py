"""What the small bodies beside a pipeline ask for: corrected contexts, or a reason."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shepherd.errors import Fault, InvalidInputError

REASON_LIMIT: Final = 200
_KEY_SHOWN: Final = 100


def contexts_of(document: Any) -> dict[str, Any]:
    """Return the corrected contexts of `{"contexts": {…}}`, by the key under which each stands.

    Raises:
        InvalidInputError: It is something else. Whether the keys mean tasks isn't looked at.
    """
    _check_fields(document, known="contexts")
    contexts = document.get("contexts", {})
    if not isinstance(contexts, dict):
        raise InvalidInputError.at("contexts", "must be an object: contexts by the name or order_no of their task")
    return contexts


def reason_of(document: Any) -> str:
    """Return the reason of `{"reason": "…"}`, in one line; empty where none is given.

    Raises:
        InvalidInputError: It is something else.
    """
    _check_fields(document, known="reason")
    reason = document.get("reason", "")
    if not isinstance(reason, str) or len(reason) > REASON_LIMIT:
        raise InvalidInputError.at("reason", f"must be a text of at most {REASON_LIMIT} characters")
    if "\0" in reason:
        raise InvalidInputError.at("reason", "must not hold NUL")
    return " ".join(reason.split())


def _check_fields(document: Any, *, known: str) -> None:
    faults = list(_faults(document, known=known))
    if faults:
        raise InvalidInputError(faults[:100])


def _faults(document: Any, *, known: str) -> Iterator[Fault]:
    if not isinstance(document, Mapping):
        yield Fault("", "must be a JSON object")
        return
    for key in document:
        if key != known:
            yield Fault(str(key)[:_KEY_SHOWN], f"is not known here; this is: {known}")
