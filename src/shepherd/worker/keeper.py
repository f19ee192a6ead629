"""Keeps a child for a slot: starts it, hears when it is ready, and pauses longer and longer where that fails."""

import logging
from collections.abc import Callable
from typing import Final

from shepherd.worker.execution import say
from shepherd.worker.pipe import Frame, FrameKind
from shepherd.worker.process import ChildProcess, Exited
from shepherd.worker.surroundings import Surroundings

logger = logging.getLogger(__name__)

#: Between two looks whether the worker ends.
_LOOK_S: Final = 0.5
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class Keeper:
    """For the slot's thread only."""

    def __init__(self, number: int, around: Surroundings, *, on_hello: Callable[[bytes], None]) -> None:
        """Keep the child of slot `number`; what a new one offers is passed on."""
        self._number = number
        self._around = around
        self._on_hello = on_hello
        self._pause_s = 0.0
        self.child: ChildProcess | None = None

    def start(self) -> ChildProcess | None:
        """Return a new child that waits for a task; None when there is none and a pause was made."""
        self.drop()
        self.child = self._around.start_child()
        try:
            ended = self._until_hello(self.child)
        except Exception:
            # Nobody knows whether it is ready.
            self.drop()
            raise
        if ended is None:
            self._pause_s = 0.0
            return self.child
        self.drop()
        if self._around.stopping.is_set():
            return None
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self._pause_s * 2))
        logger.error("child.not_started", extra={"slot": self._number, "why": ended, "again_in_s": self._pause_s})
        self._around.stopping.wait(self._pause_s)
        return None

    def _until_hello(self, child: ChildProcess) -> str | None:
        """Return None when the child is ready, otherwise why it never will be."""
        while not self._around.stopping.is_set():
            for event in child.receive(wait_s=_LOOK_S):
                if isinstance(event, Frame) and event.kind is FrameKind.HELLO:
                    self._on_hello(event.payload)
                    return None
                if isinstance(event, Exited):
                    return f"the file {event.how} before worker.run() was reached"
                say(event)
        return "the worker ends"

    def overhear(self) -> None:
        """Pass on what is said between two tasks, so that no pipe fills up; it belongs to no attempt."""
        if self.child is not None:
            for event in self.child.receive(wait_s=0):
                say(event)

    def drop(self) -> None:
        """End the child, with everything that it started."""
        if self.child is not None:
            self.child.close()
            self.child = None
