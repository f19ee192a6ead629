"""The fake that ships: a store in this process's memory, held to the same tests as the real ones."""

import hashlib
import threading
from pathlib import Path

from shepherd.errors import ProtocolError, StoreUnavailableError
from shepherd.store import key as keys
from shepherd.wire.value import ClaimCheck


class MemoryStore:
    """A `Store` that lives as long as the object does."""

    def __init__(self, url: str = "memory://fake") -> None:
        self._url = url
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._url

    def put(self, source: Path | bytes, *, key: str, media_type: str) -> ClaimCheck:
        keys.checked(key)
        content = source if isinstance(source, bytes) else _content(source)
        with self._lock:
            self._objects[key] = content
        sha256 = hashlib.sha256(content).hexdigest()
        return ClaimCheck(uri=f"{self._url}/{key}", sha256=sha256, size=len(content), media_type=media_type)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        path = into / keys.claimed(claim, url=self._url).rpartition("/")[2]
        path.write_bytes(self.read(claim))
        return path

    def read(self, claim: ClaimCheck) -> bytes:
        with self._lock:
            content = self._objects.get(keys.claimed(claim, url=self._url))
        if content is None:
            raise StoreUnavailableError(f"{claim.uri} isn't there")
        if len(content) != claim.size or hashlib.sha256(content).hexdigest() != claim.sha256:
            raise ProtocolError(f"{claim.uri} isn't what was claimed")
        return content


def _content(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise StoreUnavailableError(f"can't read {source}: {error.strerror}") from error
