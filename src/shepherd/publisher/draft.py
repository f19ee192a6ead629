"""A file that is being fetched: how much there is of it, and how much there may be."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from shepherd.errors import DataUnavailableError, InvalidInputError

#: Of files that are copied, in bytes.
CHUNK: Final = 1024 * 1024


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


class Draft:
    """Belongs to one fetch; a context manager that closes the file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.size = 0
        self._limits = limits
        self._deadline = time.monotonic() + limits.time_s
        self._file = path.open("xb")

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
        """
        self.size += len(chunk)
        self.check(self.size)
        self._file.write(chunk)

    def check(self, size: int) -> None:
        """Return if a file of that size may be fetched, and there is time left. Raises as `write` does."""
        if size > self._limits.size:
            raise InvalidInputError.at("data_url", f"is larger than {self._limits.size} bytes")
        if self.left_s <= 0:
            raise DataUnavailableError(f"the download took more than {self._limits.time_s:g} s")

    def restart(self) -> None:
        """Forget what there is."""
        self._file.seek(0)
        self._file.truncate()
        self.size = 0

    def finish(self) -> None:
        self._file.flush()
