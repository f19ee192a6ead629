"""A file that is being fetched: how much there is of it, and how much there may be."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from shepherd.errors import DataUnavailableError, InvalidInputError

#: Of files that are copied, in bytes.
CHUNK: Final = 1024 * 1024
#: In bytes: after each so many, the disk begins to write what there is. Left to itself, Linux lets gigabytes gather,
#: and the store would wait for all of them at the end.
_WRITE_OUT: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one `data_url` may cost."""

    #: In bytes.
    size: int = 64 * 1024**3
    #: In seconds, for all tries together.
    time_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a source says of a file that is all there."""

    name: str
    #: Empty where nothing was said.
    media_type: str = ""


class FetchEndedError(Exception):
    """This process ends: another one fetches the file, from its beginning."""


class Draft:
    """Belongs to one fetch; a context manager that closes the file."""

    def __init__(self, path: Path, limits: Limits, *, ended: threading.Event | None = None) -> None:
        """Take what is written into a new file; nothing more once `ended` is set."""
        self.path = path
        self.size = 0
        self._limits = limits
        self._ended = ended or threading.Event()
        self._deadline = time.monotonic() + limits.time_s
        self._file = path.open("xb", buffering=0)
        self._written_out = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def write(self, chunk: bytes) -> None:
        """Append some bytes.

        Raises:
            InvalidInputError: The file is larger than it may be.
            DataUnavailableError: It takes longer than it may.
            FetchEndedError: Nobody waits for it any more.
        """
        self.size += len(chunk)
        self.check(self.size)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        if self.size - self._written_out >= _WRITE_OUT:
            self._write_out()

    def check(self, size: int) -> None:
        """Return if a file of that size may be fetched, and there is time left. Raises as `write` does."""
        self.pause(0)
        if size > self._limits.size:
            raise InvalidInputError.at("data_url", f"is larger than {self._limits.size} bytes")
        if self.left_s <= 0:
            raise DataUnavailableError(f"the download took more than {self._limits.time_s:g} s")

    def pause(self, pause_s: float) -> None:
        """Wait. Raises `FetchEndedError` as soon as nobody waits for the file any more."""
        if self._ended.wait(pause_s):
            raise FetchEndedError

    def restart(self) -> None:
        """Forget what there is."""
        self._file.seek(0)
        self._file.truncate()
        self.size = self._written_out = 0

    def _write_out(self) -> None:
        # Said of pages that are still to be written, this only begins to write them: they stay in memory, to be read
        # for their checksum.
        os.posix_fadvise(self._file.fileno(), self._written_out, self.size - self._written_out, os.POSIX_FADV_DONTNEED)
        self._written_out = self.size
