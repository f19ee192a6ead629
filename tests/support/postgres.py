"""A PostgreSQL of the tests' own: its own folder and port, no durability, gone with the test run."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.ports import free_port
from tests.support.waiting import wait_until

_USER = "postgres"
#: Durability is not what these tests are about, and it costs most of their time.
_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    port: int

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create an empty database, or a copy of `template`, to which nothing may be connected; return its URL."""
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database with everything that is connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres_running(_OPTIONS) as server:
        yield server


@contextmanager
def postgres_running(options: Mapping[str, str]) -> Iterator[PostgresServer]:
    """Give a fresh server that nobody else uses, with these settings above its defaults; nothing of it stays."""
    # Not under .shepherd: PostgreSQL refuses to run as root, and its user may not be able to enter the work tree.
    folder = Path(tempfile.mkdtemp(prefix="shepherd-postgres-"))
    try:
        with _serving(folder, options) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(folder: Path, settings: Mapping[str, str]) -> Iterator[PostgresServer]:
    initialise(folder)
    port = free_port()
    options = [f"-c{name}={value}" for name, value in settings.items()]
    command: list[str | Path] = [
        postgres_binaries() / "postgres",
        "-D",
        folder / "data",
        "-k",
        folder,
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        *options,
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*as_own_user(), *command], stdout=log, stderr=log, cwd=folder)
    server = PostgresServer(port=port)
    try:
        wait_until(server.answers, timeout_s=30, what=f"PostgreSQL on port {port}")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def initialise(folder: Path) -> None:
    """Make an empty cluster in `folder`/data, which PostgreSQL's own user has from now on."""
    if os.geteuid() == 0:
        shutil.chown(folder, user=_USER)
    initdb: list[str | Path] = [
        postgres_binaries() / "initdb",
        "-D",
        folder / "data",
        "-U",
        _USER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-N",
    ]
    subprocess.run([*as_own_user(), *initdb], check=True, stdout=subprocess.DEVNULL, cwd=folder)


def postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "no PostgreSQL server below /usr/lib/postgresql: `make test` installs it"
    return found[-1].parent


def as_own_user() -> list[str]:
    # SIGINT is PostgreSQL's fast shutdown: it ends even when the test run is killed.
    command = ["setpriv", "--pdeathsig=INT"]
    if os.geteuid() == 0:
        command += [f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"]
    return [*command, "--"]
