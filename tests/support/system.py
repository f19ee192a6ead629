"""The whole system on real processes, each of which a test can kill, stop and start by name."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from shepherd.domain.status import ENDED_RUN
from shepherd.site.local import leftovers
from shepherd.site.local.config import BROKER_PORTS, HOST, LocalConfig
from shepherd.site.local.programs import Program, programs
from shepherd.site.local.secret_files import read_credentials
from shepherd.site.local.system import credentials_file, prepare
from tests.support.folders import ROOT, TEST_FOLDER
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until

#: A twentieth of what they are in production, but for the sweep, which would keep the machine busy.
_TIMINGS = {"SHEPHERD_BEAT_S": "0.5", "SHEPHERD_HOLD_S": "1", "SHEPHERD_LEASE_S": "3", "SHEPHERD_SWEEP_S": "0.2"}
_START_S = 90.0


class System:
    """Starts nothing by itself; `started` gives one that is up."""

    def __init__(self, config: LocalConfig, environ: Mapping[str, str]) -> None:
        self.config = config
        #: What a process started beside it needs, such as `manage.py` or one more worker.
        self.environ = prepare(config, environ=environ)
        self.credentials = read_credentials(credentials_file(config))
        self._programs = {program.name: program for program in programs(config)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # One thread starts them all, whoever asks: with the thread that started it, not with the process, a process is
        # told that its parent is dead.
        self._starter = ThreadPoolExecutor(max_workers=1)
        #: What is written before the command of a process that is to run on another machine, by its name.
        self.places: dict[str, tuple[str, ...]] = {}
        self.api = httpx.Client(
            base_url=f"{config.page_url}/api/v1",
            headers={"Authorization": f"Bearer {self.credentials.token}"},
            timeout=30.0,
            trust_env=False,
        )

    @property
    def names(self) -> list[str]:
        """The processes that belong to it, running or not, in the order in which they start."""
        return list(self._programs)

    def start(self, *names: str) -> None:
        """Start these processes, or all; what runs already is left alone. Doesn't wait until they are of use."""
        for name in names or self.names:
            if not self.is_running(name):
                self._processes[name] = self._starter.submit(self._spawn, self._programs[name]).result()

    def start_worker(self, name: str, file: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        """Start one more worker; from now on it is one of the processes, under this name."""
        python = self._programs["web"].command[0]
        self.add(Program(name=name, command=(python, str(file), *arguments), environ=environ or {}))
        self.start(name)

    def add(self, program: Program) -> None:
        """Take one more process in, or another one under a name that there is; start it by that name."""
        self._programs[program.name] = program

    def remove(self, name: str) -> None:
        """End a process, if it runs, and start it never again."""
        if name in self._processes:
            self.stop(name)
        del self._programs[name]

    def program(self, name: str) -> Program:
        return self._programs[name]

    def stop(self, name: str) -> None:
        """End a process as `make run` does at its end, and everything that it started."""
        process, program = self._processes.pop(name), self._programs[name]
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.Signals[f"SIG{program.stop_signal}"])
        try:
            process.wait(program.stop_within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _kill_group(process)

    def kill(self, name: str) -> None:
        """`kill -9`: the process alone, as when it is out of memory."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP and SIGCONT, to a process and to everything in its group."""
        os.killpg(self._processes[name].pid, number)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def is_running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def log(self, name: str) -> str:
        return (self.config.home / "log" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def post(self, body: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        """Submit a pipeline and return the run."""
        answer = self.api.post("/runs", json=body, headers=headers)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def get(self, path: str, **parameters: Any) -> Any:
        """Return what the API answers, as in `get("/catalogue")`."""
        answer = self.api.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    def wait_ended(self, run_id: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the run as soon as it has ended, however."""

        def ended_run() -> dict[str, Any] | None:
            run: dict[str, Any] = self.get(f"/runs/{run_id}")
            return run if run["status"] in ENDED_RUN else None

        run = wait_until(ended_run, timeout_s=timeout_s, what=f"the end of run {run_id}")
        assert run is not None
        return run

    def wait_ready(self) -> None:
        """Return when the page answers, and Prefect and the broker if they belong to it."""
        wait_until(lambda: _answers(f"{self.config.page_url}/healthz"), timeout_s=_START_S, what="the page")
        if self.is_running("prefect"):
            address = f"{self.environ['PREFECT_API_URL']}/health"
            wait_until(lambda: _answers(address), timeout_s=_START_S, what="Prefect")

    def end(self) -> None:
        """End everything, the last first. Safe to call again."""
        for name in reversed(list(self._processes)):
            self.stop(name)
        self._starter.shutdown()
        self.api.close()
        leftovers.end(self.config.home)

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        folder = self.config.home / "log"
        folder.mkdir(exist_ok=True)
        with (folder / f"{program.name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", "--", *self.places.get(program.name, ()), *program.command],
                cwd=self.config.root,
                env={**self.environ, **program.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def started(
    *,
    projects: Path | None = None,
    environ: Mapping[str, str] | None = None,
    but: tuple[str, ...] = (),
    places: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[System]:
    """Start a system on free ports, in a new folder, with the bundled projects unless others are named.

    `environ` comes before the defaults; with SHEPHERD_BROKER_URL or PREFECT_API_URL there, it has none of its own. The
    processes named in `but` aren't started; `places` says before which commands something is to be written.
    """
    TEST_FOLDER.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="system-", dir=TEST_FOLDER))
    own_environ = {**_foreign(os.environ), **_settings(home, projects or ROOT / "projects"), **(environ or {})}
    config = replace(LocalConfig.from_env(own_environ, root=ROOT), home=home)
    system = System(config, own_environ)
    system.places.update(places or {})
    try:
        system.start(*(name for name in system.names if name not in but))
        system.wait_ready()
        yield system
    finally:
        system.end()
        shutil.rmtree(home, ignore_errors=True)


def _settings(home: Path, projects: Path) -> dict[str, str]:
    return {
        **_TIMINGS,
        "SHEPHERD_HOME": str(home),
        "SHEPHERD_PROJECTS": str(projects),
        "SHEPHERD_WEB_PORT": str(free_port()),
        "SHEPHERD_BROKER_PORT": str(free_ports(BROKER_PORTS)),
        "SHEPHERD_PREFECT_PORT": str(free_port()),
        "SHEPHERD_DATA_URL_ALLOW": HOST,
    }


def _foreign(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(("SHEPHERD_", "PREFECT_", "DJANGO_"))}


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
