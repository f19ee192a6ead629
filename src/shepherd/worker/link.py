"""The child's end of the socket: frames out from any thread, frames in to the one that executes."""

import os
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from shepherd.worker.pipe import Frame, FrameKind, FrameReader, packed

_CHUNK: Final = 256 * 1024
_PR_SET_PDEATHSIG: Final = 1


class Link:
    """A connection to the supervisor. When the supervisor dies, so does this process, with everything it started."""

    def __init__(self, descriptor: int) -> None:
        # What the task's code starts must not inherit it: the supervisor notices a death by the socket's end.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._is_attached = True
        os.register_at_fork(after_in_child=self._detach)
        threading.Thread(target=self._die_with_supervisor, name="shepherd-watch", daemon=True).start()
        _die_with_parent()

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

    def _die_with_supervisor(self) -> None:
        poll = select.poll()
        # Only its end, not what arrives: that is the executing thread's, which would pay for every wake-up here.
        poll.register(self._socket.fileno(), 0)
        while not poll.poll():
            continue
        os.killpg(0, signal.SIGKILL)


def _die_with_parent() -> None:
    """Ask Linux for the same, for code that holds Python's lock for ever and keeps the watching thread waiting."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return
