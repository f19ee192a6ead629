"""What people would pick instead: installed into an environment of their own, started as their documents say."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.support.processes import ROOT, bare_environ, descendants, output_of, process
from bench.support.services import Services
from tests.support.waiting import wait_until

_FOLDER: Final = ROOT / "bench" / "peers"
_REQUIREMENTS: Final = _FOLDER / "requirements.txt"
_VENV: Final = ROOT / ".shepherd" / "bench-venv"
_PYTHON: Final = _VENV / "bin" / "python"
#: Processes that execute tasks, as many as Shepherd's worker has slots.
_WORKERS: Final = "4"
_START_S: Final = 30.0


def install() -> None:
    """Make the peers' environment, unless it is there with these versions."""
    stamp = _VENV / ".installed"
    wanted = _REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing the peers into {_VENV.relative_to(ROOT)} …", flush=True)
    if not _PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", _VENV], check=True)
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", _PYTHON, "-r", _REQUIREMENTS]
    subprocess.run(command, check=True)
    stamp.write_text(wanted)


class Peer:
    """One of them: its workers, and the program that submits to them."""

    def __init__(self, name: str, services: Services, environ: Mapping[str, str], worker: Sequence[str]) -> None:
        self.name = name
        self._app = _FOLDER / f"{name.partition('_')[0]}_app.py"
        self._log = services.folder / f"{name}.log"
        socket = {"BENCH_SOCKET": f"/tmp/bench-{uuid.uuid4().hex}.sock"}
        self._environ = {**bare_environ(), **socket, "BENCH_BROKER_URL": services.broker.url, **environ}
        self._worker = worker

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the workers; they are up when there are as many processes as it takes."""
        self._verb("prepare")
        with process([_PYTHON, "-m", *self._worker], environ=self._environ, log=self._log, cwd=_FOLDER) as worker:
            what = f"{self.name}'s {_WORKERS} processes"
            wait_until(lambda: len(descendants(worker.pid)) >= int(_WORKERS), timeout_s=_START_S, what=what)
            yield

    def seconds_of(self, runs: int) -> float:
        """Submit chains, after twenty that aren't counted; return the seconds to the last result."""
        return float(self._verb("submit", runs)["seconds"])

    def latency_of(self, runs: int) -> list[dict[str, int]]:
        """Submit chains one at a time, and return their times."""
        said: list[dict[str, int]] = self._verb("latency", runs)
        return said

    def _verb(self, verb: str, count: int = 0) -> Any:
        if verb == "prepare" and not self.name.startswith("celery"):
            return None
        environ = self._environ
        try:
            said = output_of([_PYTHON, self._app, verb, str(count)], environ=environ, timeout_s=600, cwd=_FOLDER)
        except RuntimeError:
            print(f"{self.name}'s workers say:\n{self._log.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            Path(environ["BENCH_SOCKET"]).unlink(missing_ok=True)
        return json.loads(said.splitlines()[-1]) if said.strip() else None


def celery(services: Services, *, results: str) -> Peer:
    """Celery with results over `rpc`, where nothing is durable, or in `postgres`."""
    url = "rpc" if results == "rpc" else services.new_database()
    lean = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    worker = ("celery", "-A", "celery_app", "worker", "-c", _WORKERS, "-l", "WARNING", *lean)
    return Peer(f"celery_{results}", services, {"BENCH_RESULTS": url}, worker)


def dramatiq(services: Services) -> Peer:
    return Peer("dramatiq", services, {}, ("dramatiq", "dramatiq_app", "-p", _WORKERS, "-t", "1"))


def taskiq(services: Services) -> Peer:
    return Peer("taskiq", services, {}, ("taskiq", "worker", "taskiq_app:broker", "--workers", _WORKERS))
