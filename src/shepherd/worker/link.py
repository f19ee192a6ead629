"""The child's end of the socket: frames out from any thread, frames in to the one that executes."""

import fcntl
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from shepherd.worker.pipe import Frame, FrameKind, FrameReader, packed

#: Below what the C library gets from the system, and gives back, for each read.
_CHUNK: Final = 64 * 1024


class Link:
    """A connection to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        # What the task's code starts must not inherit it: the supervisor notices a death by the socket's end.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._is_attached = True
        os.register_at_fork(after_in_child=self._detach)

    @property
    def is_attached(self) -> bool:
        """False in a fork of this process, which has nothing to say to the supervisor."""
        return self._is_attached

    def send(self, kind: FrameKind, payload: bytes = b"") -> None:
        self.send_packed(packed(kind, payload))

    def send_packed(self, frame: bytes) -> None:
        with self._lock:
            self._socket.sendall(frame)

    def frames(self) -> Iterator[Frame]:
        """Yield what the supervisor sends, until it closes."""
        reader, arrived = FrameReader(), deque[Frame]()
        while True:
            while arrived:
                yield arrived.popleft()
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                return
            arrived.extend(reader.feed(chunk))

    def _detach(self) -> None:
        self._is_attached = False
        self._lock = threading.Lock()
        self._socket.close()


def die_with(lifeline: int) -> None:
    """Have this process and everything in its group killed when the other end of a pipe closes, by whatever cause."""
    os.set_inheritable(lifeline, False)
    if hasattr(fcntl, "F_SETSIG"):
        # The kernel does it: a thread of ours would wait for Python's lock, which the task's code may hold for ever.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    else:
        threading.Thread(target=_watch, args=[lifeline], name="shepherd-watch", daemon=True).start()


def _watch(lifeline: int) -> None:
    while os.read(lifeline, 1):
        continue
    os.killpg(0, signal.SIGKILL)
