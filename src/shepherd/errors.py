"""Every way in which Shepherd fails, cut by what the catcher does.

| branch             | HTTP     | tried again       | a worker                     |
|--------------------|----------|-------------------|------------------------------|
| InvalidInputError  | 422, 413 | no                | replies `failed`             |
| NotFoundError      | 404      | no                | -                            |
| ConflictError      | 409      | no                | -                            |
| NotAcceptableError | 406      | no                | -                            |
| TransientError     | 503      | yes, with backoff | replies `failed`, retryable  |
| TaskFailedError    | -        | by task's policy  | replies `failed`             |
| ProtocolError      | -        | no                | dead-letters                 |

`code` is stable and meant for programs, the text is meant for people.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


class ShepherdError(Exception):
    """Something went wrong in Shepherd."""

    code: ClassVar[str] = "error"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input."""

    #: Where it is, as in `transformers_list[0].context.columns`; empty for the whole document.
    path: str
    #: What is wrong there, as the end of the sentence "This field …".
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class InvalidInputError(ShepherdError):
    """What was given can't be used; `faults` says where and why."""

    code = "invalid_input"

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))

    @classmethod
    def at(cls, path: str, reason: str) -> "InvalidInputError":
        return cls([Fault(path, reason)])


class TooLargeError(InvalidInputError):
    """What was given is larger than Shepherd takes."""

    code = "too_large"


class AddressRefusedError(InvalidInputError):
    """`data_url` leads to an address that isn't for everyone."""

    code = "address_refused"


class NotFoundError(ShepherdError):
    """There is no such thing, or the caller may not see it."""

    code = "not_found"


class ConflictError(ShepherdError):
    """What was asked contradicts what is already recorded."""

    code = "conflict"


class NotAcceptableError(ShepherdError):
    """What there is has no such form as was asked for."""

    code = "not_acceptable"


class TransientError(ShepherdError):
    """Something outside is unavailable; the same call may work later."""

    code = "unavailable"


class BrokerUnavailableError(TransientError):
    """The broker didn't answer in time, or didn't take the message."""

    code = "broker_unavailable"


class QueueMissingError(TransientError):
    """The broker has no queue of this name (yet)."""

    code = "queue_missing"


class DatabaseUnavailableError(TransientError):
    """The database didn't answer, or stayed locked for too long."""

    code = "database_unavailable"


class StoreUnavailableError(TransientError):
    """The object store didn't answer, or has no room."""

    code = "store_unavailable"


class DataUnavailableError(TransientError):
    """What `data_url` names couldn't be fetched."""

    code = "data_unavailable"


class TaskFailedError(ShepherdError):
    """A task's own code failed; `code` says how, `traceback` where."""

    def __init__(self, code: str, message: str, *, traceback: str = "", is_retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the task's code, not the class's
        self.message = message
        self.traceback = traceback
        self.is_retryable = is_retryable


class ProtocolError(ShepherdError):
    """A message breaks the protocol and never will be understood."""

    code = "protocol_error"


class ConfigurationError(ShepherdError):
    """A setting is missing or can't be used; the text names the variable."""

    code = "configuration"
