"""Ending processes with everything that they started, also what has left their group, their session or its parent."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
#: How long what is killed may take to be gone: what hangs in the kernel can't be waited for.
_KILL_S: Final = 5.0
_LOOK_S: Final = 0.01


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets out of sight.

    Linux only (prctl(2)); elsewhere a process group is all that can be ended.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_strays(*, more_than: int) -> None:
    """Wait for dead children of this process, when there are too many of them, so that they don't use up all pids.

    A subreaper can't tell what it was left from what it started itself and may still ask about; so a few may stay.
    """
    children = _children(_parents())
    if len(children) > more_than:
        _bury(children)


class Family:
    """The children of this process. Both it and they are subreapers: what a living child started is below that child,
    and what a dead one left is a child of ours that we haven't started.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._starting = threading.Lock()

    def start(self, begin: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        # Nobody may look in between: a child that isn't known yet would be taken for a stray.
        with self._starting:
            process = begin()
            self._known.add(process.pid)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a child with everything below it; return when all of it is gone."""
        if process.returncode is None:
            # The whole group in one call: nothing of it can start more in the meantime.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        _repeat(lambda: self._killed_some(process))

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Know a child no longer, once it has ended and was waited for; what it left is killed."""
        with self._starting:
            self._known.discard(process.pid)
        self.kill(process)

    def end(self) -> None:
        """Kill everything below this process; for its last moment."""

        def kills_some() -> bool:
            parents = _parents()
            children = _children(parents)
            found = _killed(children, parents)
            _bury(children)
            return bool(found)

        _repeat(kills_some)

    def _killed_some(self, process: subprocess.Popen[bytes]) -> bool:
        with self._starting:
            parents = _parents()
            strays = _children(parents) - self._known
        found = _killed(strays if process.returncode is not None else {process.pid, *strays}, parents)
        # Ours to bury, since we are their parent now.
        _bury(strays)
        if process.returncode is None:
            process.poll()
        return bool(found)


def _repeat(kills_some: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _KILL_S
    # Until nothing is found: something may have been started while we looked.
    while kills_some() and time.monotonic() < deadline:
        threading.Event().wait(_LOOK_S)


def _killed(roots: Collection[int], parents: dict[int, int]) -> set[int]:
    """Kill these and everything below them, and return what there was."""
    found = _with_descendants(roots, parents)
    for pid in found:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


def _bury(children: Collection[int]) -> None:
    for pid in children:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _children(parents: dict[int, int]) -> set[int]:
    return {pid for pid, parent in parents.items() if parent == os.getpid()}


def _with_descendants(roots: Collection[int], parents: dict[int, int]) -> set[int]:
    found = {pid for pid in roots if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parents() -> dict[int, int]:
    """Return the parent of every process on this machine; nothing where there is no `/proc`."""
    parents = {}
    with suppress(FileNotFoundError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (parent := _parent(entry.name)):
                parents[int(entry.name)] = parent
    return parents


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # hundreds at once
            # The name in brackets may hold anything, brackets too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0
