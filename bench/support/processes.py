"""Processes that end with the benchmark."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[2]
BENCH_FOLDER: Final = ROOT / ".shepherd" / "bench"
_STOP_S: Final = 20.0


def bare_environ() -> dict[str, str]:
    """Return the environment without what would send a contender to other services."""
    foreign = ("SHEPHERD_", "PREFECT_", "DJANGO_", "PYTHON", "CELERY_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


@contextmanager
def process(
    command: Sequence[str | Path], *, environ: Mapping[str, str], log: Path, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, of which nothing is left at the end."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", "--", *command],
            cwd=cwd,
            env={**environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
    started.terminate()
    try:
        started.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    # Whoever has a process group of its own, such as a worker's child.
    for relative in family:
        if relative.is_running():
            relative.kill()


def output_of(command: Sequence[str | Path], *, environ: Mapping[str, str], timeout_s: float, cwd: Path = ROOT) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        RuntimeError: It failed; the text is what it said.
    """
    done = subprocess.run(
        ["setpriv", "--pdeathsig=TERM", "--", *command],
        cwd=cwd,
        env={**environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}:\n{done.stderr[-3000:]}")
    return done.stdout


def resident_mb(pid: int) -> float:
    """Return the memory of one process that is in the machine's, in MB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that a process started, and those that these started."""
    return psutil.Process(pid).children(recursive=True)
