"""What an earlier start left running, told by a mark in its environment: nothing else is ever touched."""

from pathlib import Path

import psutil

#: Set for every process that a local system starts, and handed down to what these start.
MARK = "SHEPHERD_STARTED_BY"
_GRACE_S = 20.0
_KILL_S = 5.0
_ROUNDS = 10


def mark(home: Path) -> dict[str, str]:
    return {MARK: str(home)}


def end(home: Path) -> int:
    """End every process that the local system of this folder started and that still runs; return how many."""
    found = _marked(home)
    # supervisord first and alone: it ends the others in their order, and would restart what is ended beside it.
    _end([process for process in found if "supervisor.supervisord" in _command(process)], within_s=_GRACE_S)
    # Again until there is nothing: a RabbitMQ that is just starting, for one, starts another epmd when its own is gone.
    for _ in range(_ROUNDS):
        left = _marked(home)
        if not left:
            break
        _end(left, within_s=_KILL_S)
    return len(found)


def _marked(home: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _mark(process) == str(home)]


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _end(processes: list[psutil.Process], *, within_s: float) -> None:
    for process in processes:
        _signal(process, "terminate")
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    for process in alive:
        _signal(process, "kill")
    psutil.wait_procs(alive, timeout=_KILL_S)


def _signal(process: psutil.Process, how: str) -> None:
    try:
        getattr(process, how)()
    except psutil.NoSuchProcess:
        return
