"""A local system from its first file to its last process."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from shepherd.errors import ConfigurationError
from shepherd.site.local import leftovers, ports, secret_files
from shepherd.site.local.config import LocalConfig
from shepherd.site.local.programs import broker_node, programs
from shepherd.site.local.secret_files import Credentials
from shepherd.site.local.supervision import Supervisor

#: The page needs a second or two; more only on a machine that is busy with everything else that starts.
_START_S: Final = 60.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSystem:
    """A system that accepts pipelines."""

    config: LocalConfig
    credentials: Credentials
    supervisor: Supervisor


@contextmanager
def running(config: LocalConfig, *, environ: Mapping[str, str]) -> Iterator[LocalSystem]:
    """Start the system, yield it when its page answers, and leave no process of it behind.

    What an earlier start left behind because it was killed is ended first.

    Raises:
        ConfigurationError: A port is taken, or the system of this folder runs already. Nothing was started.
    """
    config.home.mkdir(parents=True, exist_ok=True)
    with _only_one(config.home):
        leftovers.end(config.home)
        ports.refuse_taken(config.ports())
        own_environ = prepare(config, environ=environ)
        supervisor = Supervisor(home=config.home, root=config.root)
        try:
            supervisor.start(programs(config), environ=own_environ)
            _await_page(config, supervisor)
            credentials = secret_files.read_credentials(credentials_file(config))
            yield LocalSystem(config=config, credentials=credentials, supervisor=supervisor)
        finally:
            supervisor.stop()
            leftovers.end(config.home)


def prepare(config: LocalConfig, *, environ: Mapping[str, str]) -> dict[str, str]:
    """Write every file that the processes need, and return the environment that they have to be started with."""
    key = secret_files.secret_key(config.home / "secret_key")
    settings = config.settings(secret_key=key)
    settings_file = config.home / "env"
    secret_files.write_settings(settings_file, settings)
    marked = leftovers.mark(config.home) | {"SHEPHERD_ENV_FILE": str(settings_file), "PYTHONUNBUFFERED": "1"}
    own_environ = {**environ, **settings, **marked}
    if config.has_own_broker:
        broker_node(config).prepare()
    _prepare_database(config, own_environ)
    return own_environ


def credentials_file(config: LocalConfig) -> Path:
    return config.home / "credentials.json"


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"The system of {home} runs already. Set SHEPHERD_HOME and the ports to start another one beside it."
            ) from None
        yield


def _prepare_database(config: LocalConfig, environ: Mapping[str, str]) -> None:
    # In a process of its own: Django reads its settings from the environment when it is imported.
    command = [sys.executable, str(config.root / "manage.py"), "prepare_server", str(credentials_file(config))]
    done = subprocess.run(command, cwd=config.root, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ConfigurationError(f"The database could not be prepared:\n{done.stderr.strip()}")


def _await_page(config: LocalConfig, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(f"{config.page_url}/healthz"):
        if not supervisor.is_running or time.monotonic() > deadline:
            raise ConfigurationError(f"The page did not answer; see {config.home / 'log'}{os.sep}web.log")
        # Nothing tells of it: whether a page answers can only be tried.
        time.sleep(_POLL_S)


def _answers(url: str) -> bool:
    # Whatever it says: a pipeline is accepted while other parts of the system still start.
    try:
        httpx.get(url, timeout=5.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
