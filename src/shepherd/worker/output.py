"""What a task's code prints and logs, on its way to the supervisor."""

import io
import logging
import os
import sys
import threading
import time
from typing import Final

from shepherd.worker.failure import printable
from shepherd.worker.link import Link
from shepherd.worker.mask import Mask
from shepherd.worker.pipe import packed_line

#: A line longer than this is sent in pieces.
_MAX_PIECE: Final = 64 * 1024
_LEVELS: Final = (
    (logging.CRITICAL, "CRITICAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARNING"),
    (logging.INFO, "INFO"),
)


class LineStream(io.TextIOBase):
    """Standard output or error that sends whole lines; what C code writes to the descriptor goes its own way."""

    def __init__(self, link: Link, original: io.TextIOWrapper, mask: Mask, *, level: str) -> None:
        self._link = link
        self._mask = mask
        self._original = original
        self._level = level
        self._begun = ""
        self._lock = threading.RLock()

    @property
    def buffer(self) -> object:
        return self._original.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self._original.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self._link.is_attached:
            return self._original.write(text)
        with self._lock:
            *lines, begun = (self._begun + text).split("\n")
            if len(begun) > _MAX_PIECE:
                piece, begun = self._mask.split_text(begun)
                lines = [*lines, piece]
            self._begun = begun
            for line in lines:
                self._send(line)
        return len(text)

    def flush(self) -> None:
        self._original.flush()

    def end_line(self) -> None:
        """Send what stands without a line's end: nothing follows it."""
        self._original.flush()
        with self._lock:
            begun, self._begun = self._begun, ""
            if begun:
                self._send(begun)

    def _send(self, line: str) -> None:
        # Of a progress bar, which goes back to the line's start each time, only the last state.
        text = self._mask.text(printable(line)).rstrip("\r").rpartition("\r")[2]
        self._link.send_packed(packed_line(at=time.time(), level=self._level, text=text))


class LinkHandler(logging.Handler):
    """Sends each log record as one line, with its level."""

    def __init__(self, link: Link, mask: Mask) -> None:
        super().__init__()
        self._link = link
        self._mask = mask

    def emit(self, record: logging.LogRecord) -> None:
        if not self._link.is_attached:
            return
        level = next((name for number, name in _LEVELS if record.levelno >= number), "DEBUG")
        try:
            text = self._mask.text(printable(self.format(record)))
        except Exception:  # noqa: BLE001  # as `logging` itself: a wrong format string must not fail the task
            self.handleError(record)
            return
        self._link.send_packed(packed_line(at=record.created, level=level, text=text))


class Output:
    """Everything that a task's code says, redirected for the rest of the process's life."""

    def __init__(self, link: Link, mask: Mask) -> None:
        self._streams = [
            LineStream(link, _text_of(sys.__stdout__, 1), mask, level="INFO"),
            LineStream(link, _text_of(sys.__stderr__, 2), mask, level="WARNING"),
        ]
        _redirect_logging(link, mask)
        sys.stdout, sys.stderr = self._streams

    def end_lines(self) -> None:
        for stream in self._streams:
            stream.end_line()


def _text_of(stream: object, descriptor: int) -> io.TextIOWrapper:
    if isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(os.fdopen(descriptor, "wb", closefd=False))


def _redirect_logging(link: Link, mask: Mask) -> None:
    root = logging.getLogger()
    consoles = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    for handler in [h for h in root.handlers if getattr(h, "stream", None) in consoles]:
        # What `logging.basicConfig` in the author's file put there would say each line a second time.
        root.removeHandler(handler)
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    root.addHandler(LinkHandler(link, mask))
