"""The supervisor's end of one child process: starting it, hearing it, ending it with everything it started."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from shepherd.worker.child import VARIABLE, ChildSetup
from shepherd.worker.family import Family
from shepherd.worker.mask import SHORTEST, Mask
from shepherd.worker.pipe import Frame, FrameKind, FrameReader, packed
from shepherd.worker.vault import environment_secrets

#: Below what the C library gets from the system, and gives back, for each read.
_CHUNK: Final = 64 * 1024
#: Bytes that may wait in the socket; the system doubles it, for its own needs.
_SOCKET_HOLDS: Final = 256 * 1024
#: As much as it ever holds.
_MOST_CHUNKS: Final = 2 * _SOCKET_HOLDS // _CHUNK
_MAX_PIECE: Final = 64 * 1024
#: What a child gets to end by itself.
_GRACE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line that C code or a grandchild wrote, around Python's own streams."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The child is gone."""

    #: As the end of the sentence "The process …".
    how: str


Event = Frame | OutputLine | Exited


class ChildProcess:
    """One child. To be used by one thread at a time; only `kill` may be called by any."""

    def __init__(
        self, command: Sequence[str], setup: ChildSetup, *, environ: Mapping[str, str], family: Family
    ) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_HOLDS)
        lifeline, self._lifeline = os.pipe()
        with theirs, os.fdopen(lifeline, "rb"):
            told = replace(setup, descriptor=theirs.fileno(), lifeline=lifeline).to_text()
            self._family = family
            self._process = family.start(
                lambda: subprocess.Popen(  # noqa: S603  # the command that started this worker
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**environ, VARIABLE: told},
                    pass_fds=[theirs.fileno(), lifeline],
                    # A group of its own: Ctrl-C reaches the supervisor alone.
                    start_new_session=True,
                    bufsize=0,
                )
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._socket = ours
        self._scratch = setup.scratch
        #: True while nobody wants to know what is written around Python's own streams: it is read and dropped.
        self.is_muted = False
        self._frames = FrameReader()
        self._is_closed = False
        self._is_gone = False
        #: Of the secrets that may come out of it. Those of the environment from the beginning: the author's file may
        #: print that while it is imported.
        self._mask = Mask()
        for name, value in environment_secrets(environ).items():
            if len(value) >= SHORTEST:
                self._mask.add(name, value)
        self._outputs = {
            self._process.stdout.fileno(): _Lines("INFO", self._mask),
            self._process.stderr.fileno(): _Lines("WARNING", self._mask),
        }
        self._poll = select.poll()
        for descriptor in (ours.fileno(), *self._outputs):
            self._poll.register(descriptor, select.POLLIN)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has said its last word."""
        return self._is_closed

    @property
    def is_alive(self) -> bool:
        """Whether it can be spoken to: its process may go on without its socket."""
        return not self._is_closed and self._process.poll() is None

    @property
    def descriptor(self) -> int:
        """Of the socket, where its words come from, and its end."""
        return self._socket.fileno()

    def send(self, kind: FrameKind, payload: bytes = b"") -> bool:
        """Return False when the child is gone; then it has executed nothing of this."""
        try:
            self._socket.sendall(packed(kind, payload))
        except OSError:
            self._is_closed = True
            return False
        return True

    def receive(self, *, wait_s: float) -> list[Event]:
        """Return what the child said, or nothing after `wait_s` seconds; `Exited` is the last that ever comes.

        Before that one, the process is ended, which takes seconds if it doesn't end by itself.
        """
        events = self.heard(wait_s=wait_s)
        if self._is_closed and not self._is_gone:
            self._is_gone = True
            events += self._end()
        return events

    def heard(self, *, wait_s: float = 0) -> list[Event]:
        """Return the same as `receive` but for `Exited`: `has_ended` says that it would be the next."""
        ready = [descriptor for descriptor, _ in self._poll.poll(wait_s * 1000)]
        # The outputs first: what was written before the reply belongs to it.
        written = {descriptor: self._read_output(descriptor) for descriptor in self._outputs if descriptor in ready}
        # Then all that came before that on the socket: a secret is told there before it can be written.
        said = self._read_socket() if ready else []
        events: list[Event] = []
        for descriptor, chunk in written.items():
            events += self._lines(descriptor, chunk)
        return events + said

    def drained(self) -> list[Event]:
        """Return what stands in the output pipes now, including lines without an end."""
        events: list[Event] = []
        for descriptor, _ in self._poll.poll(0):
            if descriptor in self._outputs:
                events += self._lines(descriptor, self._read_output(descriptor))
        return events + [line for lines in self._outputs.values() for line in lines.end()]

    def kill(self) -> None:
        """End it at once, with everything that it started; safe from any thread, and when it is already gone."""
        self._family.kill(self._process)

    def close(self) -> None:
        """Let it end, then make sure that nothing of it is left, also of its files."""
        self.send(FrameKind.QUIT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()
        self._process.wait()
        self._family.forget(self._process)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._socket.close()
        os.close(self._lifeline)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_socket(self) -> list[Event]:
        """Return the frames that are there by now, however many."""
        frames: list[Event] = []
        # What is written faster than it is read must not keep us here; more than this can't have been there.
        for _ in range(_MOST_CHUNKS):
            chunk = self._received()
            if chunk is None:
                break
            self._is_closed = not chunk
            frames += self._heard(chunk)
            if len(chunk) < _CHUNK:
                break
        return frames

    def _received(self) -> bytes | None:
        """Return some of what the socket holds; nothing of it at its end, None where it holds nothing."""
        try:
            return self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def _heard(self, chunk: bytes) -> Iterator[Frame]:
        for frame in self._frames.feed(chunk):
            if frame.kind is FrameKind.SECRET:
                self._mask.add(*json.loads(frame.payload))
            else:
                yield frame

    def _read_output(self, descriptor: int) -> bytes:
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            self._poll.unregister(descriptor)
        return chunk

    def _lines(self, descriptor: int, chunk: bytes) -> list[Event]:
        return [] if self.is_muted else list(self._outputs[descriptor].feed(chunk))

    def _end(self) -> list[Event]:
        how = self._how_it_ended()
        rest = self.drained()
        self._poll.unregister(self._socket.fileno())
        return [*rest, Exited(how)]

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            return "closed its connection to the supervisor, and was killed"
        self.kill()
        return _ending(status)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    number = -status
    name = signal.Signals(number).name if number in signal.valid_signals() else str(number)
    hint = "; perhaps the machine ran out of memory" if number == signal.SIGKILL else ""
    return f"was killed by signal {name}{hint}"


class _Lines:
    """Cuts what comes out of a pipe into lines."""

    def __init__(self, level: str, mask: Mask) -> None:
        self._level = level
        self._mask = mask
        self._begun = b""

    def feed(self, chunk: bytes) -> Iterator[OutputLine]:
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        for line in lines:
            yield self._line(line)
        if len(self._begun) > _MAX_PIECE:
            piece, self._begun = self._mask.split_content(self._begun)
            yield self._line(piece)

    def end(self) -> Iterator[OutputLine]:
        begun, self._begun = self._begun, b""
        if begun:
            yield self._line(begun)

    def _line(self, line: bytes) -> OutputLine:
        line = self._mask.content(line).rstrip(b"\r").rpartition(b"\r")[2]
        text = line.decode("utf-8", "replace").replace("\0", "␀")
        return OutputLine(self._level, text)


def wait_until(moment: float) -> float:
    """Return how many seconds there are until a moment of the monotonic clock, none if it has passed."""
    return max(0.0, moment - time.monotonic())
