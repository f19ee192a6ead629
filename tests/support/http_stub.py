"""A web server of a test's own, which may break off, redirect, trickle and change its mind."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

#: Answers one request; what it raises ends the connection.
Answer = Callable[[BaseHTTPRequestHandler], None]


class HttpStub:
    """Serves on a port of this machine until it is closed."""

    def __init__(self, answer: Answer, *, host: str = "127.0.0.1", port: int = 0) -> None:
        #: The paths and headers of all requests so far.
        self.requests: list[tuple[str, dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                answer(self)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


def say(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str | int) -> None:
    """Send an answer; `content_length=…` is a header, and by default the body's length."""
    request.send_response(status)
    for name, value in {"content_length": len(body), **headers}.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    request.wfile.write(body)
    request.wfile.flush()
