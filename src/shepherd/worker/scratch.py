"""The folder of a worker for files that last no longer than an attempt, and what dead workers have left of theirs."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "shepherd-scratch-"
#: Of a folder that isn't locked yet, and so isn't to be taken for a dead worker's.
_NEW: Final = "shepherd-new-"


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Give a process a folder of its own below `root`, and remove those of this user's that nobody has any more.

    It is locked for as long as the context lasts, also against what clears temporary folders by their age.
    """
    for each in root.glob(f"{_PREFIX}*"):
        _remove_if_left(each)
    made = Path(tempfile.mkdtemp(prefix=_NEW, dir=root))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(root / f"{_PREFIX}{made.name.removeprefix(_NEW)}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        # In a temporary folder that all users share, anybody may make one that is called so.
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        # Its worker lives.
        return
    finally:
        os.close(lock)
