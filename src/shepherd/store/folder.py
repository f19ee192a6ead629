"""A folder as an object store: the default, and enough for servers that share a file system.

Plain files rather than an object-store client on purpose: a put must survive a power cut before its claim check is
sent, which wants fsync of file and folder, and a worker's child should start no threads before its task does.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from shepherd.errors import ConfigurationError, StoreUnavailableError
from shepherd.store.key import checked, claimed
from shepherd.store.port import StoredObject
from shepherd.store.verify import Digest, chunks, compare_size
from shepherd.wire.value import ClaimCheck

_CHUNK: Final = 1024 * 1024
_DRAFT: Final = ".part"
#: A draft that is older belongs to a process that died.
_LONGEST_DRAFT_S: Final = 7 * 86_400.0
_TRIES: Final = 10


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

    def put(self, source: Path | bytes, *, key: str, media_type: str, is_given_up: bool = False) -> ClaimCheck:
        target = self._root / checked(key)
        with _as_unavailable(f"can't write {target}"):
            digest = _linked(source, target) if is_given_up and isinstance(source, Path) else None
            digest = digest or _copied(source, target)
        return digest.claim(f"{self._url}/{key}", media_type=media_type)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:  # noqa: ARG002  # the store's own file needs no copy
        path = self._root / claimed(claim, url=self._url)
        with _as_unavailable(f"can't read {path}"):
            compare_size(claim, path.stat().st_size)
            digest = _digest_of(path)
        digest.compare(claim)
        return path

    def read(self, claim: ClaimCheck) -> bytes:
        path = self._root / claimed(claim, url=self._url)
        with _as_unavailable(f"can't read {path}"):
            compare_size(claim, path.stat().st_size)
            content = path.read_bytes()
        digest = Digest()
        digest.update(content)
        digest.compare(claim)
        return content

    def list(self, prefix: str) -> Iterator[StoredObject]:
        root = self._root / (checked(prefix) if prefix else "")
        with _as_unavailable(f"can't list {root}"):
            for folder, _, names in os.walk(root, onerror=_unless_gone):
                yield from (each for name in names if (each := self._listed(Path(folder) / name)))

    def delete(self, keys: Sequence[str]) -> None:
        for path in [self._root / checked(key) for key in keys]:
            with _as_unavailable(f"can't delete {path}"):
                path.unlink(missing_ok=True)
                self._tidy(path.parent)

    def check(self) -> None:
        with _as_unavailable(f"can't use the folder {self._root}"):
            self._root.mkdir(parents=True, exist_ok=True)
            if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
                raise StoreUnavailableError(f"can't use the folder {self._root}: it isn't writable for this user")

    def _listed(self, path: Path) -> StoredObject | None:
        key = path.relative_to(self._root).as_posix()
        # Drafts are no objects, until what wrote them is surely dead.
        with suppress(FileNotFoundError):
            found = path.stat()
            at = datetime.fromtimestamp(found.st_mtime, UTC)
            if not path.name.endswith(_DRAFT) or (datetime.now(UTC) - at).total_seconds() > _LONGEST_DRAFT_S:
                return StoredObject(key=key, size=found.st_size, modified_at=at)
        return None

    def _tidy(self, folder: Path) -> None:
        """Remove folders that have become empty; one that isn't, or is written to again, stays."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent


def _unless_gone(error: OSError) -> None:
    # Nothing was put there yet, or it was removed while we looked.
    if not isinstance(error, FileNotFoundError):
        raise error


def _linked(source: Path, target: Path) -> Digest | None:
    """Give the file itself a second name in the store; None where that can't be done."""
    draft = target.parent / _draft_name()
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, draft)
    except OSError:
        # It lies on another file system, mostly. Whatever else it is, copying says it.
        return None
    try:
        # The disk writes while the checksum is taken.
        with draft.open("rb") as file, ThreadPoolExecutor(1) as pool:
            synced = pool.submit(os.fsync, file.fileno())
            digest = _digest_of(draft)
            synced.result()
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)
    return digest


def _copied(source: Path | bytes, target: Path) -> Digest:
    digest = Digest()
    with _replacing(target) as file:
        for chunk in chunks(source, size=_CHUNK):
            digest.update(chunk)
            _write(file, chunk)
    return digest


def _digest_of(path: Path) -> Digest:
    digest = Digest()
    for chunk in chunks(path, size=_CHUNK):
        digest.update(chunk)
    return digest


def _draft_name() -> str:
    return f".{secrets.token_hex(8)}{_DRAFT}"


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    with _draft(target.parent) as (draft, file):
        yield file
        os.fsync(file.fileno())
        draft.replace(target)
    _sync_folder(target.parent)


@contextmanager
def _draft(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    draft = folder / _draft_name()
    try:
        with _created(draft) as file:
            yield draft, file
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def _created(draft: Path) -> IO[bytes]:
    for _ in range(_TRIES):
        draft.parent.mkdir(parents=True, exist_ok=True)
        # Whoever deletes the last object of a folder removes the folder too, and may do so in between.
        with suppress(FileNotFoundError):
            return draft.open("xb", buffering=0)
    return draft.open("xb", buffering=0)


def _write(file: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    # The rename is in the folder, not in the file: without this a power cut may undo it after the claim was sent.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(f"{what}: {error.strerror or error}") from error
