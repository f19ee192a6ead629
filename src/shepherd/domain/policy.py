"""How often a task is tried, how long it may wait and run; and what happens next when an attempt didn't succeed."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from shepherd.errors import Fault

#: Seconds; ten years, so that no sum of times overflows.
_LONGEST: Final = 10 * 366 * 86_400
_MOST_TRIES: Final = 1_000
#: Seconds; a pause between two tries never grows beyond it.
_LONGEST_PAUSE: Final = 600.0
LONGEST_PAUSE: Final = timedelta(seconds=_LONGEST_PAUSE)

#: What no further attempt changes: the caller or the author has to mend it first.
FINAL_CODES: Final = frozenset({"invalid_context", "protocol_error", "unknown_task", "wait_timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One task's. Times are in seconds; None means without limit."""

    #: How many attempts may follow a failed one.
    retries: int = 0
    #: The longest first pause between two of them; each next one may be twice as long, up to ten minutes.
    backoff: float = 5.0
    #: How many attempts may follow one that was lost with its worker.
    retry_on_lost: int = 3
    #: From publishing to the moment in which a worker has begun it.
    wait_timeout: float | None = None
    #: Of one attempt, in a worker's hands.
    run_timeout: float | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Policy":
        """Return the policy that a document without faults describes; what it doesn't say has its default."""
        return cls(**document)

    def longest_pause_s(self, failures: int) -> float:
        """Return how long the pause after so many failures may be; the pause is drawn from 0 up to it."""
        # Doubled at most 30 times: a float overflows otherwise, long after the limit was reached.
        return float(min(_LONGEST_PAUSE, self.backoff * 2.0 ** min(failures - 1, 30)))

    def tries_again(self, *, failures: int, code: str) -> bool:
        return failures <= self.retries and code not in FINAL_CODES

    def replaces_lost(self, *, losses: int) -> bool:
        return losses <= self.retry_on_lost


POLICY_FIELDS: Final = ("retries", "backoff", "retry_on_lost", "wait_timeout", "run_timeout")


def policy_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a task's document that is its policy: only what is stated."""
    return {name: document[name] for name in POLICY_FIELDS if name in document}


def usable_policy_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a stranger's document that is a policy, without what is wrong in it."""
    stated = policy_of(document)
    return {name: value for name, value in stated.items() if not any(policy_faults({name: value}, path=""))}


def effective(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return all five fields of the policy that a document without faults describes."""
    return asdict(Policy.of(document))


def merged(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """Return what several documents say together, where a later one counts more; without what is the default anyway."""
    stated: dict[str, Any] = {}
    for document in documents:
        stated |= document
    plain = Policy()
    return {name: value for name, value in stated.items() if value != getattr(plain, name)}


def policy_faults(document: Mapping[str, Any], *, path: str) -> Iterator[Fault]:
    """Yield what is wrong with the policy's fields in a document; other fields are somebody else's."""
    for name in ("retries", "retry_on_lost"):
        if name in document and not _is_count(document[name]):
            yield Fault(f"{path}{name}", f"must be an integer from 0 to {_MOST_TRIES}")
    if "backoff" in document and not _is_seconds(document["backoff"], least=0):
        yield Fault(f"{path}backoff", f"must be a number of seconds from 0 to {_LONGEST_PAUSE:g}")
    for name in ("wait_timeout", "run_timeout"):
        if document.get(name) is not None and not _is_seconds(document[name], least=0.001, most=_LONGEST):
            yield Fault(f"{path}{name}", f"must be a number of seconds from 0.001 to {_LONGEST}, or null for no limit")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TRIES


def _is_seconds(value: Any, *, least: float, most: float = _LONGEST_PAUSE) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
