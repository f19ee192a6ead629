"""A TCP proxy that can do to a connection what a network does."""

import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a port of its own and passes on to another one, until it is told to stall or to reset."""

    def __init__(self, *, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                return
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=pair, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._may_pass.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            _hang_up(end)

    def stall(self) -> None:
        """Keep all connections open and pass nothing on, in either direction: the peer looks alive and says nothing."""
        self._may_pass.clear()

    def resume(self) -> None:
        self._may_pass.set()

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
        self.resume()
        self.reset()
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._sockets:
            end.close()


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
