"""Disks of a few mebibytes, to be filled and to fail. Needs root: each is a mount."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MEBIBYTE = 2**20
_FILLER = "filler"


class SmallDisk:
    """A file system in memory, mounted at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no room, not for one byte. Safe to call again, when something has made room."""
        for size in (_MEBIBYTE, 4096, 1):
            with suppress(_NoRoomError), (self.folder / _FILLER).open("ab", buffering=0) as filler:
                while True:
                    _write(filler.fileno(), size)

    def make_room(self) -> None:
        (self.folder / _FILLER).unlink(missing_ok=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Allow no writing meanwhile. Nobody may have a file open for writing."""
        _call("mount", "-o", "remount,ro", self.folder)
        try:
            yield
        finally:
            _call("mount", "-o", "remount,rw", self.folder)


@contextmanager
def small_disk(folder: Path, *, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount one at a folder, whose own files can't be seen meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder)
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that still ends may have a file open.
        _call("umount", "--lazy", folder)


class FailingDisk:
    """A file system that can turn read-only under those who write to it, as one does whose disk has an error."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image

    def mount(self) -> None:
        _call("mount", "-o", "loop,errors=remount-ro", self._image, self.folder)

    def fail(self) -> None:
        """From now on nothing can be written, also to files that are open."""
        # Its status tells that the file system has an error, which is what was asked for.
        subprocess.run(["mount", "-o", "remount,abort", self.folder], check=False, capture_output=True)

    def unmount(self) -> None:
        """Nobody may have a file open. `mount` then repairs what was cut off."""
        _call("umount", self.folder)


@contextmanager
def failing_disk(folder: Path, *, mebibytes: int) -> Iterator[FailingDisk]:
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(mebibytes * _MEBIBYTE)
    _call("mkfs.ext4", "-q", image)
    disk = FailingDisk(image, folder)
    disk.mount()
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)
        image.unlink()


class _NoRoomError(Exception):
    pass


def _write(descriptor: int, size: int) -> None:
    try:
        os.write(descriptor, bytes(size))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _NoRoomError from error
        raise


def _call(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
