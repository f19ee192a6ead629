"""A TCP proxy that can do to a connection what a network does."""

import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 65536
#: Closing sends a reset instead of an orderly end.
_ABORT = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of its own and passes on to another one, until it is told to do worse."""

    def __init__(self, *, to_port: int, to_host: str = "127.0.0.1") -> None:
        self._to = (to_host, to_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._cuts = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, near: socket.socket) -> None:
        self._sockets.append(near)
        try:
            far = socket.create_connection(self._to, timeout=5)
        except OSError:
            # As if nobody listened here either.
            _abort(near)
            return
        far.settimeout(None)
        self._sockets.append(far)
        back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
        self._threads.append(back)
        back.start()
        self._pass_on(near, far)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._may_pass.wait()
                time.sleep(self._delay_s + (len(data) / self._bytes_per_s if self._bytes_per_s else 0.0))
                if self._cuts.is_set() and len(data) > 1:
                    self._cuts.clear()
                    sink.sendall(data[: len(data) // 2])
                    _abort(source)
                    _abort(sink)
                    return
                sink.sendall(data)
        for end in (source, sink):
            _hang_up(end)

    def stall(self) -> None:
        """Pass nothing on, in either direction, on old connections and new ones: half open, as when a cable is out."""
        self._may_pass.clear()

    def resume(self) -> None:
        self._may_pass.set()

    def slow_down(self, *, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """Keep every piece for so long, and pass on no faster than so much in each direction; 0 is without limit."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def cut_in_frame(self) -> None:
        """Pass on half of the next piece, and reset its connection."""
        self._cuts.set()

    def reset(self) -> None:
        """Break the connections that there are; new ones pass."""
        for end in list(self._sockets):
            _hang_up(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A blocked `accept` doesn't notice a close, but does a shutdown.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.slow_down()
        self.resume()
        self.reset()
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._sockets:
            end.close()


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _abort(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        _hang_up(end)
