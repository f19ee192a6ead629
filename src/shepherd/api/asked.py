"""What the small bodies beside a pipeline ask for: corrected contexts, a sample, or a reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from shepherd.domain.pipeline import sample_faults
from shepherd.errors import Fault, InvalidInputError

REASON_LIMIT: Final = 200
_KEY_SHOWN: Final = 100


def contexts_of(document: Any, *, beside: str = "") -> dict[str, Any]:
    """Return the corrected contexts of `{"contexts": {…}}`, by the key under which each stands.

    `beside` is a field that may stand there, too.

    Raises:
        InvalidInputError: It is something else. Whether the keys mean tasks isn't looked at.
    """
    _check_fields(document, "contexts", *filter(None, [beside]))
    contexts = document.get("contexts", {})
    if not isinstance(contexts, dict):
        raise InvalidInputError.at("contexts", "must be an object: contexts by the name or order_no of their task")
    return contexts


def sample_rows_of(document: Mapping[str, Any]) -> int | None:
    """Return on how many rows a run is to be tried out: 0 for all of them, as `null` says, None where nothing is said.

    Raises:
        InvalidInputError: It isn't a number of rows.
    """
    rows = document.get("sample_rows")
    if faults := list(sample_faults(rows)):
        raise InvalidInputError(faults)
    return 0 if rows is None and "sample_rows" in document else rows


def reason_of(document: Any) -> str:
    """Return the reason of `{"reason": "…"}`, in one line; empty where none is given.

    Raises:
        InvalidInputError: It is something else.
    """
    _check_fields(document, "reason")
    reason = document.get("reason", "")
    if not isinstance(reason, str) or len(reason) > REASON_LIMIT:
        raise InvalidInputError.at("reason", f"must be a text of at most {REASON_LIMIT} characters")
    if "\0" in reason:
        raise InvalidInputError.at("reason", "must not hold NUL")
    return " ".join(reason.split())


def _check_fields(document: Any, *known: str) -> None:
    faults = list(_faults(document, known))
    if faults:
        raise InvalidInputError(faults[:100])


def _faults(document: Any, known: Sequence[str]) -> Iterator[Fault]:
    if not isinstance(document, Mapping):
        yield Fault("", "must be a JSON object")
        return
    for key in document:
        if key not in known:
            listed = f"this is: {known[0]}" if len(known) == 1 else f"these are: {', '.join(known)}"
            yield Fault(str(key)[:_KEY_SHOWN], f"is not known here; {listed}")
