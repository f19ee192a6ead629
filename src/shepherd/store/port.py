"""Where data is left under a claim check, and fetched with one."""

from pathlib import Path
from typing import Protocol

from shepherd.wire.value import ClaimCheck


class Store(Protocol):
    """An object store, or a folder that serves as one. Safe to call from any thread and process."""

    @property
    def url(self) -> str:
        """Name the store, as in `file:///srv/shepherd/store`."""

    def put(self, source: Path | bytes, *, key: str, media_type: str) -> ClaimCheck:
        """Keep a file or some bytes under `key`, and return the claim check.

        Nobody sees the object before it is whole; a second `put` of the same key replaces it whole. `key` is made of
        segments of letters, digits, `-`, `_` and `.`, joined by `/`.

        Raises:
            StoreUnavailableError: No room or no answer; nothing became visible. Try again later.
            InvalidInputError: The key could lead out of the store.
        """

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        """Return a local file with the claimed bytes: in the folder `into`, or where the store itself keeps it.

        The file is only to be read. Its size and checksum were compared with the claim's.

        Raises:
            StoreUnavailableError: The object isn't there or can't be reached.
            ProtocolError: What is there isn't what was claimed.
        """

    def read(self, claim: ClaimCheck) -> bytes:
        """Return the claimed bytes; for what is known to be small. Raises as `fetch` does."""
