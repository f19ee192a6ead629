"""A connection that waits no longer than its download may take, however slowly the other side speaks."""

import ssl
import time
from typing import Any, Final

import httpcore

from shepherd.publisher.draft import Draft

#: Between two looks whether the download is still wanted, in seconds.
_LOOK_S: Final = 1.0


class TimedStream(httpcore.NetworkStream):
    """In front of another one."""

    def __init__(self, inner: httpcore.NetworkStream, draft: Draft) -> None:
        self._inner = inner
        self._draft = draft

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        until = time.monotonic() + self._left(timeout)
        while True:
            left_s = until - time.monotonic()
            try:
                return self._inner.read(max_bytes, max(0.001, min(_LOOK_S, left_s)))
            except httpcore.ReadTimeout:
                if left_s <= _LOOK_S:
                    raise
                self._draft.check(self._draft.size)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return TimedStream(self._inner.start_tls(ssl_context, server_hostname, self._left(timeout)), self._draft)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        self._draft.check(self._draft.size)
        return self._draft.left_s if timeout is None else min(timeout, self._draft.left_s)
