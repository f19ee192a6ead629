"""The frames that cross the socket between a supervisor and its child: length, kind, payload."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from shepherd.wire.logs import LogLine

#: A line longer than this is cut.
LONGEST_LINE: Final = 16 * 1024
_HEADER: Final = struct.Struct(">IB")


class FrameKind(IntEnum):
    """What a frame is; the first two go to the child, the others come from it."""

    #: A task's body as it was delivered.
    TASK = ord("T")
    #: End now: no task will come any more.
    QUIT = ord("Q")
    #: The child is ready; JSON list of what it offers.
    HELLO = ord("H")
    #: One log line; JSON list of seconds since 1970, level, text.
    LINE = ord("L")
    #: The whole reply, ready to be published.
    RESULT = ord("R")
    #: The task's body was no envelope; the reason as text.
    MALFORMED = ord("M")
    #: A secret that the task's code is about to get; JSON list of its name and its value. Never leaves the supervisor.
    SECRET = ord("S")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message on the socket."""

    kind: FrameKind
    payload: bytes


def packed(kind: FrameKind, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


class FrameReader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        self._buffer += chunk
        while len(self._buffer) >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(FrameKind(kind), payload)


def packed_line(*, at: float, level: str, text: str) -> bytes:
    # Before it is copied any further: it may be as large as the child's memory.
    return packed(FrameKind.LINE, json.dumps([at, level, cut(text)]).encode())


def cut(text: str) -> str:
    """Return a line that is no longer than lines may be, and says so where it was; the same again if called again."""
    if len(text) <= LONGEST_LINE:
        return text
    note = f"… (cut; it had {len(text)} characters)"
    return text[: LONGEST_LINE - len(note)] + note


def parse_line(payload: bytes, *, n: int = 0) -> LogLine:
    at, level, text = json.loads(payload)
    return LogLine(n=n, at=datetime.fromtimestamp(at, UTC), level=level, text=text)
