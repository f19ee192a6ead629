"""Where one attempt has its files: the store behind it, and a folder for as long as it lasts."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from shepherd.errors import InvalidInputError
from shepherd.store.key import checked, segment
from shepherd.store.port import Store
from shepherd.wire.value import ClaimCheck

#: Bytes that the kernel copies in one call.
_COPIED_AT_ONCE: Final = 1024**3


class Desk:
    """An attempt's files. Its folder is made when first asked for, since most attempts need none."""

    def __init__(self, store: Store, *, prefix: str, scratch: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._scratch = scratch
        self._folder: Path | None = None
        #: Where the bytes of a claim lie on this server, by its address.
        self._local: dict[str, Path] = {}
        #: What was put as bytes, by its claim's address; becomes a file when somebody wants one.
        self._written: dict[str, bytes] = {}
        #: What was made of a claim's bytes to read them as a table, by its address.
        self._tables: dict[str, Path] = {}
        #: How many rows at most are read of a table that has to be converted; None for all.
        self.most_rows: int | None = None
        self._put: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            # What is left is removed with the child's whole scratch folder.
            shutil.rmtree(self._folder, ignore_errors=True)

    def folder(self) -> Path:
        """Return a new empty folder, which is removed when the attempt has ended."""
        if self._folder is None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=self._scratch)).resolve()
        return Path(tempfile.mkdtemp(dir=self._folder))

    def path(self, name: str) -> Path:
        """Return a path for a new file in a folder of its own: no other file of the attempt ever has it."""
        return self.folder() / name

    def fetch(self, claim: ClaimCheck) -> Path:
        path = self._local.get(claim.uri)
        if path is None:
            path = self._local[claim.uri] = self._store.fetch(claim, into=self.folder())
        return path

    def own(self, claim: ClaimCheck) -> Path:
        """Return a file with a claim's bytes that the task's code may change, move or remove.

        A store that is a folder gives out its own file, and what a task writes into that would be in every other run.
        """
        path = self.fetch(claim)
        if self._folder is not None and path.is_relative_to(self._folder):
            return path
        target = self.path(path.name)
        _copy(path, target)
        return target

    def local(self, claim: ClaimCheck) -> Path | None:
        """Return the file with a claim's bytes if this attempt has it at hand, as written or fetched before."""
        if claim.uri in self._written:
            self._local[claim.uri] = self.path("content")
            self._local[claim.uri].write_bytes(self._written.pop(claim.uri))
        path = self._local.get(claim.uri)
        return path if path is not None and path.exists() else None

    def keep_table(self, claim: ClaimCheck, path: Path) -> None:
        """Remember the Parquet file that was made of a claim's bytes."""
        self._tables[claim.uri] = path

    def table(self, claim: ClaimCheck) -> Path | None:
        """Return the Parquet file that was made of a claim's bytes, if one was."""
        return self._tables.get(claim.uri)

    def tables(self) -> frozenset[Path]:
        """Return all Parquet files from which this attempt's frames are read."""
        return frozenset(self._tables.values())

    def read(self, claim: ClaimCheck) -> bytes:
        path = self._local.get(claim.uri)
        return self._store.read(claim) if path is None else path.read_bytes()

    def replace(self, claim: ClaimCheck, path: Path) -> None:
        """Have this file stand for a claim's bytes, for as long as the attempt lasts."""
        self._local[claim.uri] = path

    def put(self, source: Path | bytes, *, name: str, media_type: str, is_given_up: bool = False) -> ClaimCheck:
        """Leave a file or some bytes in the store, under a key that ends like `name`; see `Store.put`."""
        key = f"{self._prefix}/{self._unused(name)}"
        claim = self._store.put(source, key=key, media_type=media_type, is_given_up=is_given_up)
        if isinstance(source, Path):
            self._local[claim.uri] = source
        else:
            self._written[claim.uri] = source
        return claim

    def _unused(self, name: str) -> str:
        fit = segment(name)
        key, number = fit, 1
        while key in self._put:
            number += 1
            key = segment(f"{number}-{fit[-180:]}")
        self._put.add(key)
        return key

    def discard(self, path: Path) -> None:
        """Remove a file that isn't needed any more; one that stands for a claim stays until the attempt has ended."""
        if path in self._local.values():
            return
        with suppress(OSError):
            path.unlink()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as out:
        try:
            # Without copying anything on file systems that can have two files share their blocks, and on NFS's server.
            while os.copy_file_range(read.fileno(), out.fileno(), _COPIED_AT_ONCE):
                pass
        except OSError:
            out.seek(read.seek(0))
            out.truncate()
            shutil.copyfileobj(read, out, 1024 * 1024)


def desk_prefix(*, run_id: str, order_no: int, task: str, attempt: int, execution: str) -> str:
    """Return the part of a store's keys that is one execution's own.

    An attempt may be executed twice, when a worker dies before its reply is confirmed: the second execution must not
    replace what the first one's recorded claim checks promise, so `execution` is different each time.

    Raises:
        InvalidInputError: The run's id can't be part of a key.
    """
    if segment(run_id) != run_id:
        raise InvalidInputError.at("run.id", "must be letters, digits and '-'")
    return checked(f"runs/{run_id}/{order_no}-{task}-{attempt}/{execution}")
