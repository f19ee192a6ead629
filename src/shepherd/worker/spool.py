"""Replies on disk, until the broker has confirmed them: what was claimed is nobody else's any more."""

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shepherd.errors import ProtocolError
from shepherd.wire.envelope import parse_reply

logger = logging.getLogger(__name__)

_LOCK: Final = "lock"
_SUFFIX: Final = ".reply"
_UNFINISHED: Final = ".tmp"
#: Where is put what can't be read, for people to look at.
_ASIDE: Final = "aside"
_PROBE: Final = bytes(4096)
_MOST_FOLDERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One reply in the spool."""

    path: Path
    token: str
    body: bytes


class Spool:
    """A folder of this worker's own, locked for as long as it lives. Safe from any thread."""

    def __init__(self, root: Path, *, name: str, limit: int) -> None:
        """Keep at most `limit` bytes in a folder below `root` that begins with the worker's name."""
        self._root = root
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        self._locked: int | None = None
        self._folder = root
        self._used = 0
        #: Why no reply can be kept now; empty when all is well.
        self.trouble = "it isn't open yet"

    def open(self) -> list[Kept]:
        """Return what lies here unsent, of this worker and of those that have ended; nothing once it is open.

        Where that can't be done, `trouble` says why; call again.
        """
        with self._lock:
            if self._locked is not None:
                return []
            try:
                self._locked = self._own_folder()
                self._adopt()
                kept = list(self._read())
            except OSError as error:
                self._refuse(str(error))
                return []
            self._used = sum(len(reply.body) for reply in kept)
            self._recover()
            return kept

    def put(self, token: str, body: bytes) -> Kept | None:
        """Keep a reply: it outlives this process and this machine's power. None if that can't be done, see `trouble`.

        A crash in the middle leaves nothing that could be taken for a reply.
        """
        path = self._folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{_SUFFIX}"
        with self._lock:
            try:
                self._check_room(len(body))
                self._write(path, body)
            except OSError as error:
                self._refuse(str(error))
                return None
            self._used += len(body)
        return Kept(path=path, token=token, body=body)

    def remove(self, kept: Kept) -> None:
        with self._lock:
            try:
                kept.path.unlink(missing_ok=True)
            except OSError as error:
                # It will be sent once more after the next start, which changes nothing.
                logger.warning("spool.not_removed", extra={"path": kept.path, "why": str(error)})
            self._used -= len(kept.body)

    def probe(self) -> None:
        """Find out whether a reply could be kept now."""
        with self._lock:
            if self._locked is None:
                return
            try:
                self._check_room(len(_PROBE))
                self._write(probe := self._folder / f"probe{_UNFINISHED}{_SUFFIX}", _PROBE)
                probe.unlink()
            except OSError as error:
                self._refuse(str(error))
                return
            self._recover()

    def close(self) -> None:
        with self._lock:
            if self._locked is not None:
                os.close(self._locked)
                self._locked = None
                self.trouble = "it is closed"

    def _own_folder(self) -> int:
        for number in range(_MOST_FOLDERS):
            self._folder = self._root / f"{self._name}-{number}"
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (locked := _lock(self._folder)) is not None:
                return locked
        raise OSError(f"all of {self._root}/{self._name}-* are in use")

    def _adopt(self) -> None:
        for folder in sorted(self._root.iterdir()):
            if folder == self._folder or not (folder / _LOCK).exists() or (locked := _lock(folder)) is None:
                continue
            try:
                for path in folder.glob(f"*{_SUFFIX}"):
                    logger.info("spool.adopted", extra={"path": path})
                    path.rename(self._folder / path.name)
            finally:
                os.close(locked)
        _sync(self._folder)

    def _read(self) -> Iterator[Kept]:
        for path in sorted(self._folder.iterdir()):
            if path.name in (_LOCK, _ASIDE):
                continue
            if _UNFINISHED in path.name:
                # Cut off in the middle of being written: nobody was promised anything.
                path.unlink()
                continue
            try:
                body = path.read_bytes()
                yield Kept(path=path, token=parse_reply(body).token, body=body)
            except (OSError, ProtocolError) as error:
                self._set_aside(path, why=str(error))

    def _set_aside(self, path: Path, *, why: str) -> None:
        logger.warning("spool.set_aside", extra={"path": path, "why": why})
        aside = self._folder / _ASIDE
        aside.mkdir(exist_ok=True)
        path.rename(aside / f"{path.name}.{secrets.token_hex(2)}")

    def _check_room(self, size: int) -> None:
        if self._used + size > self._limit:
            raise OSError(f"it holds {self._used} bytes, and may hold {self._limit} (SHEPHERD_SPOOL_MB)")

    def _write(self, path: Path, body: bytes) -> None:
        unfinished = path.with_name(path.name.removesuffix(_SUFFIX) + _UNFINISHED)
        try:
            with unfinished.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            _sync(self._folder)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def _refuse(self, why: str) -> None:
        if why != self.trouble:
            logger.error("spool.refuses", extra={"folder": self._folder, "why": why, "so": "no new work is taken"})
        self.trouble = why

    def _recover(self) -> None:
        if self.trouble:
            logger.info("spool.ready", extra={"folder": self._folder, "replies_bytes": self._used})
        self.trouble = ""


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds a folder's lock, or None if another worker has it."""
    descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
