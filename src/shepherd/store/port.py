"""Where data is left under a claim check, and fetched with one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from shepherd.wire.value import ClaimCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as a listing shows it."""

    key: str
    #: In bytes.
    size: int
    #: By the store's own clock.
    modified_at: datetime


class Store(Protocol):
    """An object store, or a folder that serves as one. Safe to call from any thread and process."""

    @property
    def url(self) -> str:
        """Name the store, as in `file:///srv/shepherd/store` or `s3://bucket/prefix`."""

    def put(self, source: Path | bytes, *, key: str, media_type: str, is_given_up: bool = False) -> ClaimCheck:
        """Keep a file or some bytes under `key`, and return the claim check.

        Nobody sees the object before it is whole; a second `put` of the same key replaces it whole. `key` is made of
        segments of letters, digits, `-`, `_` and `.`, joined by `/`. Files pass through in pieces, whatever their size.
        With `is_given_up` nobody writes to the file any more, though it may be read and removed: the store may keep it
        instead of a copy.

        Raises:
            StoreUnavailableError: No room, no right or no answer; nothing became visible. Try again later.
            InvalidInputError: The key could lead out of the store.
            ConfigurationError: The store's settings can't be used.
        """

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        """Return a local file with the claimed bytes: in a folder below `into`, or where the store itself keeps it.

        The file is only to be read. Its size and checksum were compared with the claim's.

        Raises:
            StoreUnavailableError: The object isn't there or can't be reached.
            ProtocolError: What is there isn't what was claimed.
            ConfigurationError: The store's settings can't be used.
        """

    def read(self, claim: ClaimCheck) -> bytes:
        """Return the claimed bytes; for what is known to be small. Raises as `fetch` does."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Return what lies below `prefix` (a key, or `""` for everything), in no order, in pieces as it is asked for.

        Raises:
            StoreUnavailableError: No answer, at any point of the iteration.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects for good; what isn't there is no fault. Some may be gone when this raises.

        Raises:
            StoreUnavailableError: No right or no answer. Call again.
            InvalidInputError: A key could lead out of the store; nothing was removed.
        """

    def check(self) -> None:
        """Return if the store is there and lets itself be used, within seconds and without leaving anything behind.

        Raises:
            StoreUnavailableError: It isn't; the text says why.
            ConfigurationError: Its settings can't be used.
        """
