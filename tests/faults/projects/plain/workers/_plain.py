"""The worker of the fault suites. Each execution leaves a line in the effect ledger, before it does anything else."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _leaks import SAYINGS, WAYS_OUT

from shepherd.worker import Worker, current_task

worker = Worker("plain")


def note(event: str, **fields: Any) -> None:
    """Append one line, in one write: so that lines of several processes never mix."""
    task = current_task()
    line = {
        "event": event,
        "at": time.time(),
        "task": task.id,
        "attempt": task.attempt,
        "name": task.name,
        "worker": os.getppid(),
        "pid": os.getpid(),
        **fields,
    }
    descriptor = os.open(os.environ["FAULTS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def begun(context: dict[str, Any], data: Any = None) -> None:
    note("begin", context=context, data=data)


@worker.task
def step(context: dict[str, Any], data: Any) -> dict[str, Any]:
    """Take `seconds`, fail the first `failures` attempts, and say which attempt this is and what it was given."""
    begun(context, data)
    time.sleep(context.get("seconds", 0))
    attempt = current_task().attempt
    if attempt <= context.get("failures", 0):
        raise RuntimeError(f"attempt {attempt} fails")
    note("end")
    return {"n": context.get("n"), "attempt": attempt, "after": data["n"] if isinstance(data, dict) else None}


worker.add_task(step, name="led_step")
worker.add_task(step, name="led_slow_step")
worker.add_task(step, name="led_thread_step")


@worker.task
def gated(context: dict[str, Any], data: Any) -> dict[str, Any]:
    """Go on when the file `gate` exists."""
    begun(context, data)
    while not Path(context["gate"]).exists():
        time.sleep(0.02)
    note("end")
    return {"n": context.get("n"), "attempt": current_task().attempt}


@worker.task
def break_down(context: dict[str, Any]) -> None:
    """End the process that executes this, as `how` says."""
    begun(context)
    WAYS[context["how"]]()


@worker.task
def kill_worker(context: dict[str, Any]) -> None:
    """Kill the process above, after `seconds`: what a task does that makes the machine end its worker."""
    begun(context)
    time.sleep(context.get("seconds", 0))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@worker.task
def spread(context: dict[str, Any]) -> None:
    """Ignore SIGTERM, start processes that leave the process group's tree, and never end."""
    begun(context)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids = Path(context["pids"])
    child = subprocess.Popen(["sleep", "86400"])
    # A second `fork` whose parent is gone: it belongs to nobody in the tree.
    orphan = subprocess.run(
        ["sh", "-c", "sleep 86401 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    ).stdout.strip()
    pids.write_text(f"{os.getpid()} {child.pid} {orphan}")
    while True:
        pass


@worker.task
def pour_out(context: dict[str, Any]) -> dict[str, Any]:
    """Write `mebibytes` of bytes that are no text, and close descriptors that aren't its own."""
    begun(context)
    chunk = bytes(range(256)) * 4096
    for _ in range(context["mebibytes"]):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    if context.get("closes"):
        os.close(1)
        os.close(2)
    note("end")
    return {"n": context.get("n"), "attempt": current_task().attempt}


def leak(context: dict[str, Any]) -> Any:
    """Say a secret in every way, then try to get it out as `how` says."""
    key = context["key"]
    begun({**context, "key": {"$secret": "CANARY"}})
    for say in SAYINGS:
        say(key)
    return WAYS_OUT[context["how"]](key, Path(context["folder"]))


worker.add_task(leak)
worker.add_task(leak, name="led_leak")


@worker.task
def large(context: dict[str, Any], data: Any) -> bytes:
    """Return `kibibytes` of bytes that can't be compressed, by way of the store."""
    begun(context)
    note("end")
    return os.urandom(context["kibibytes"] * 1024)


@worker.task
def weigh(context: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Say how many bytes came."""
    begun(context)
    note("end")
    return {"n": len(data), "attempt": current_task().attempt}


@worker.task
def name_file(context: dict[str, Any], data: Path | None) -> Path:
    """Return a path as `how` says, having read the file that came."""
    begun(context)
    assert data is None or data.read_text() == "fine"
    return PATHS[context["how"]](Path(tempfile.mkdtemp()))


def _written(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("fine")
    return path


def _linked(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


def _folder_of_links(folder: Path) -> Path:
    _written(folder / "inner" / "fine.txt")
    _linked(folder / "out", "/etc/passwd")
    _linked(folder / "up", "../..")
    return folder


#: By what is odd about it, each given a new folder.
PATHS: dict[str, Callable[[Path], Path]] = {
    "of dots": lambda folder: _written(folder / "... .csv"),
    "escaped dots": lambda folder: _written(folder / "..%2f..%2fetc%2fpasswd"),
    "of control characters": lambda folder: _written(folder / 'a\n\x1b"<b>.csv'),
    "of 255 bytes": lambda folder: _written(folder / f"{'n' * 251}.csv"),
    "a link": lambda folder: _linked(folder / "link.txt", str(_written(folder / "target"))),
    "a link to nothing": lambda folder: _linked(folder / "link.txt", "../../nothing"),
    "a folder of links": _folder_of_links,
    "with NUL": lambda folder: folder / "a\0b",
    "of 4,096 characters": lambda folder: folder / ("a" * 4096),
    "absolute, of nothing": lambda _: Path("/nowhere/at/all"),
}


class Own(BaseException):
    pass


def _raise_own() -> None:
    raise Own("nobody catches this")


def _interrupt() -> None:
    raise KeyboardInterrupt


def _segfault() -> None:
    ctypes.string_at(0)


def _out_of_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    kept = []
    while True:
        kept.append(bytearray(2**26))


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WAYS = {
    "abort": os.abort,
    "segfault": _segfault,
    "killed as when out of memory": _kill_itself,
    "out of memory": _out_of_memory,
    "os._exit(0)": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(3),
    "BaseException": _raise_own,
    "KeyboardInterrupt": _interrupt,
    "SIGINT to itself": lambda: os.kill(os.getpid(), signal.SIGINT),
}

#: A name that no other worker serves.
if also := os.environ.get("FAULTS_ALSO"):
    worker.add_task(step, name=also)

worker.run()
