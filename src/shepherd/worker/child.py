"""The process in which tasks are executed: it serves its supervisor until told to end."""

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from shepherd.errors import ProtocolError
from shepherd.store import open_store
from shepherd.worker.executor import Executor
from shepherd.worker.family import become_subreaper, bury_strays
from shepherd.worker.link import Link, die_with
from shepherd.worker.output import Output
from shepherd.worker.pipe import FrameKind
from shepherd.worker.task import Task
from shepherd.worker.vault import Vault

#: In a child's environment only: how it finds its supervisor.
VARIABLE: Final = "SHEPHERD_CHILD"
#: After so many tasks it is looked for dead processes that tasks have left; so many are borne.
_BURY_EVERY: Final = 100
_MOST_CHILDREN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSetup:
    """What a supervisor tells its child at the start."""

    #: Descriptor of the inherited socket.
    descriptor: int
    #: Descriptor of the inherited pipe whose end is the supervisor's end.
    lifeline: int
    worker: str
    store_url: str
    #: Folder of this child's own for files that last no longer than an attempt; made when it is needed.
    scratch: str
    #: Folder with one file a secret; empty where there is none.
    secrets: str = ""

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> "ChildSetup | None":
        """Return the setup if this process is a child, and hide it from what the task's code will start."""
        text = environ.pop(VARIABLE, "")
        return cls(**json.loads(text)) if text else None


def serve(tasks: Mapping[str, Task], setup: ChildSetup) -> None:
    """Say what is served, then execute what comes, until the supervisor says to end."""
    _stay_when_all_are_told_to_end()
    die_with(setup.lifeline)
    become_subreaper()
    link = Link(setup.descriptor)
    vault = Vault.taken_from(os.environ, folder=setup.secrets, tell=_telling(link))
    executor = Executor(
        tasks, store=open_store(setup.store_url), worker=setup.worker, scratch=Path(setup.scratch), vault=vault
    )
    output = Output(link, vault.mask)
    link.send(FrameKind.HELLO, json.dumps([task.offer().to_wire() for task in tasks.values()]).encode())
    for number, frame in enumerate(link.frames(), start=1):
        if frame.kind is FrameKind.QUIT:
            return
        if number % _BURY_EVERY == 0:
            bury_strays(more_than=_MOST_CHILDREN)
        _answer(frame.payload, executor=executor, link=link, output=output)


def _telling(link: Link) -> Callable[[str, str], None]:
    def tell(name: str, value: str) -> None:
        # To the supervisor only, which keeps it out of what the task's code writes around Python's own streams.
        link.send(FrameKind.SECRET, json.dumps([name, value]).encode())

    return tell


def _answer(body: bytes, *, executor: Executor, link: Link, output: Output) -> None:
    try:
        kind, payload = FrameKind.RESULT, executor.execute(body)
    except ProtocolError as error:
        kind, payload = FrameKind.MALFORMED, str(error).encode()
    if not link.is_attached:
        # A fork of this process that came back out of the task's code: only the original may answer and go on.
        os._exit(0)
    output.end_lines()
    link.send(kind, payload)


def _stay_when_all_are_told_to_end() -> None:
    """Leave it to the supervisor when systemd or a terminal signals the whole group: the running task may end first.

    A handler that does nothing, instead of ignoring: what the task's code starts would inherit that. A fork inherits
    the handler as well, but is to end when it is told to: `multiprocessing` waits for that.
    """
    if threading.current_thread() is threading.main_thread():
        usual = {number: signal.signal(number, _go_on) for number in (signal.SIGTERM, signal.SIGINT)}
        masks = threading.local()

        def hold() -> None:
            # Until the fork has its own handlers: a signal in between would be swallowed by ours.
            masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, usual)

        def go_on() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

        def begin() -> None:
            for number, handler in usual.items():
                if signal.getsignal(number) is _go_on:
                    signal.signal(number, handler)
            go_on()

        os.register_at_fork(before=hold, after_in_parent=go_on, after_in_child=begin)


def _go_on(_number: int, _frame: object) -> None: ...
