"""The fake that ships: a store in this process's memory, held to the same tests as the real ones."""

import secrets
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from shepherd.errors import StoreUnavailableError
from shepherd.store.key import checked, claimed
from shepherd.store.port import StoredObject
from shepherd.store.verify import Digest
from shepherd.wire.value import ClaimCheck


class MemoryStore:
    """A `Store` that lives as long as the object does."""

    def __init__(self, url: str = "memory://fake") -> None:
        self._url = url
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._url

    def put(
        self,
        source: Path | bytes,
        *,
        key: str,
        media_type: str,
        is_given_up: bool = False,  # noqa: ARG002  # it has to be copied anyway
    ) -> ClaimCheck:
        checked(key)
        content = source if isinstance(source, bytes) else _content(source)
        with self._lock:
            self._objects[key] = content, datetime.now(UTC)
        return _digest(content).claim(f"{self._url}/{key}", media_type=media_type)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        path = into / secrets.token_hex(8) / claimed(claim, url=self._url).rpartition("/")[2]
        content = self.read(claim)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return path

    def read(self, claim: ClaimCheck) -> bytes:
        with self._lock:
            found = self._objects.get(claimed(claim, url=self._url))
        if found is None:
            raise StoreUnavailableError(f"can't read {claim.uri}: it isn't there")
        _digest(found[0]).compare(claim)
        return found[0]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._lock:
            found = dict(self._objects)
        return (
            StoredObject(key=key, size=len(content), modified_at=at)
            for key, (content, at) in found.items()
            if not prefix or key == prefix or key.startswith(f"{prefix.rstrip('/')}/")
        )

    def delete(self, keys: Sequence[str]) -> None:
        wanted = [checked(key) for key in keys]
        with self._lock:
            for key in wanted:
                self._objects.pop(key, None)

    def check(self) -> None:
        """It is always there."""


def _digest(content: bytes) -> Digest:
    digest = Digest()
    digest.update(content)
    return digest


def _content(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise StoreUnavailableError(f"can't read {source}: {error.strerror}") from error
