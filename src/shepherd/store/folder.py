"""A folder as an object store: the default, and enough for servers that share a file system.

Plain files rather than an object-store client on purpose: a put must survive a power cut before its claim check is
sent, which wants fsync of file and folder, and a worker's child should start no threads before its task does.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from shepherd.errors import ConfigurationError, ProtocolError, StoreUnavailableError
from shepherd.store import key as keys
from shepherd.wire.value import ClaimCheck

_CHUNK: Final = 1024 * 1024


class FolderStore:
    """A `Store` in the folder that a `file:` URL names. Several processes may use it at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._root = Path(unquote(parts.path))
        if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not self._root.is_absolute():
            raise ConfigurationError(f"SHEPHERD_STORE: {url!r} must be file:///absolute/path")
        self._url = self._root.as_uri().rstrip("/")

    @property
    def url(self) -> str:
        return self._url

    def put(self, source: Path | bytes, *, key: str, media_type: str) -> ClaimCheck:
        target = self._root / keys.checked(key)
        sha256, size = hashlib.sha256(), 0
        with _as_unavailable(f"can't write {target}"), _replacing(target) as file:
            for chunk in _chunks(source):
                sha256.update(chunk)
                size += file.write(chunk)
        return ClaimCheck(uri=f"{self._url}/{key}", sha256=sha256.hexdigest(), size=size, media_type=media_type)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:  # noqa: ARG002  # the store's own file needs no copy
        path = self._root / keys.claimed(claim, url=self._url)
        with _as_unavailable(f"can't read {path}"), path.open("rb") as file:
            _compare(claim, size=os.fstat(file.fileno()).st_size)
            _compare(claim, sha256=hashlib.file_digest(file, "sha256").hexdigest())
        return path

    def read(self, claim: ClaimCheck) -> bytes:
        path = self._root / keys.claimed(claim, url=self._url)
        with _as_unavailable(f"can't read {path}"):
            content = path.read_bytes()
        _compare(claim, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        return content


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{secrets.token_hex(8)}.part"
    try:
        with draft.open("xb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The rename is in the folder, not in the file: without this a power cut may undo it after the claim was sent.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chunks(source: Path | bytes) -> Iterator[memoryview]:
    if isinstance(source, bytes):
        yield from (memoryview(source)[start : start + _CHUNK] for start in range(0, len(source), _CHUNK))
        return
    buffer = memoryview(bytearray(_CHUNK))
    with source.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def _compare(claim: ClaimCheck, *, size: int | None = None, sha256: str | None = None) -> None:
    if size is not None and size != claim.size:
        raise ProtocolError(f"{claim.uri} has {size} bytes, claimed were {claim.size}")
    if sha256 is not None and sha256 != claim.sha256:
        raise ProtocolError(f"{claim.uri} has the checksum {sha256}, claimed was {claim.sha256}")


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(f"{what}: {error.strerror or error}") from error
