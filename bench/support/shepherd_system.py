"""Shepherd's processes, as `make run` starts them, on a database and a part of the broker of their own."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from bench.support.processes import ROOT, bare_environ, output_of, process
from bench.support.services import Services
from tests.support.waiting import wait_until

_PROJECTS: Final = ROOT / "bench" / "projects"
_WORKERS: Final = _PROJECTS / "bench" / "workers"
#: Between two looks at the database.
_LOOK_S: Final = 0.02
_UNENDED: Final = "SELECT count(*) FROM pipelines_run WHERE finished_at IS NULL"
_START_S: Final = 90.0


class Database:
    """Looks at the runs from outside, with one connection."""

    def __init__(self, url: str) -> None:
        self._is_sqlite = url.startswith("sqlite:")
        self._connection: Any = (
            sqlite3.connect(f"file:{url.removeprefix('sqlite://')}?mode=ro", uri=True, isolation_level=None)
            if self._is_sqlite
            else psycopg.connect(url, autocommit=True)
        )

    def number(self, query: str) -> float:
        """Return the first column of the first row; times as seconds since 1970."""
        value = self._connection.execute(query).fetchone()[0]
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
        return float(value.timestamp() if isinstance(value, datetime) else value)

    def close(self) -> None:
        self._connection.close()

    def unended(self) -> int:
        return int(self.number(_UNENDED))

    def wait_unended(self, most: int, *, timeout_s: float, alive: subprocess.Popen[bytes]) -> float:
        """Return when at most so many runs had not ended; looks each 20 ms.

        Raises:
            TimeoutError: It took too long.
            RuntimeError: The process that does the work has ended.
        """

        def is_over() -> bool:
            is_so = self.unended() <= most
            if not is_so and alive.poll() is not None:
                raise RuntimeError("the Task Publisher has ended")
            return is_so

        wait_until(is_over, timeout_s=timeout_s, what=f"all runs but {most} at their end", every_s=_LOOK_S)
        return time.time()


class ShepherdSystem:
    """Starts nothing by itself. `database` is `sqlite` or `postgres`."""

    def __init__(self, services: Services, *, database: str, environ: Mapping[str, str] | None = None) -> None:
        self._services = services
        self._database = database
        name = f"shepherd_{database}"
        self.folder = services.folder / name
        self.folder.mkdir(parents=True)
        self.environ = {
            **bare_environ(),
            # A folder above may hold the settings of a system that somebody uses.
            "SHEPHERD_ENV_FILE": "",
            "SHEPHERD_BROKER_URL": services.vhost_url(name),
            "SHEPHERD_STORE": (self.folder / "store").as_uri(),
            "SHEPHERD_SPOOL": str(self.folder / "spool"),
            "SHEPHERD_PROJECTS": str(_PROJECTS),
            "SHEPHERD_PREFECT": "off",
            "SHEPHERD_SLOTS": "4",
            "SHEPHERD_SECRET_KEY": "bench",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
            **(environ or {}),
        }
        self._template = self._migrated()

    @property
    def database_url(self) -> str:
        return self.environ["SHEPHERD_DATABASE_URL"]

    @property
    def token(self) -> str:
        """What the API wants to see; of every database, since they are copies."""
        return str(json.loads((self.folder / "credentials.json").read_text())["token"])

    def renew_database(self) -> None:
        """Go on with an empty database. Only while nothing runs."""
        if self._database == "sqlite":
            file = self.folder / "db" / "shepherd.sqlite3"
            shutil.rmtree(file.parent, ignore_errors=True)
            file.parent.mkdir()
            shutil.copy(self._template, file)
            self.environ["SHEPHERD_DATABASE_URL"] = f"sqlite://{file}"
        else:
            self.environ["SHEPHERD_DATABASE_URL"] = self._services.new_database(template=self._template)

    def _migrated(self) -> str:
        url = f"sqlite://{self.folder / 'template.sqlite3'}"
        if self._database == "postgres":
            url = self._services.new_database()
        environ = {**self.environ, "SHEPHERD_DATABASE_URL": url}
        command = [sys.executable, "manage.py", "prepare_server", str(self.folder / "credentials.json")]
        output_of(command, environ=environ, timeout_s=120)
        return url.rpartition("/")[2] if self._database == "postgres" else url.removeprefix("sqlite://")

    def worker(self, name: str = "steps") -> AbstractContextManager[subprocess.Popen[bytes]]:
        return process([sys.executable, _WORKERS / f"{name}.py"], environ=self.environ, log=self.folder / "worker.log")

    def publisher(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        command = [sys.executable, "manage.py", "runscript", "worker_demon"]
        return process(command, environ=self.environ, log=self.folder / "publisher.log")

    def web(self, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
        listen = f"--listen=127.0.0.1:{port}"
        command = [sys.executable, "-m", "waitress", listen, "--threads=8", "shepherd.site.wsgi:application"]
        return process(command, environ=self.environ, log=self.folder / "web.log")

    def accept(self, runs: int, *tasks: str) -> float:
        """Accept runs, and return when the first of them was."""
        command = [sys.executable, "-m", "bench.support.accept", str(runs), *tasks]
        return float(json.loads(output_of(command, environ=self.environ, timeout_s=600))["began"])

    @contextmanager
    def looking(self) -> Iterator[Database]:
        database = Database(self.database_url)
        try:
            yield database
        finally:
            database.close()

    def run_to_end(self, runs: int, *tasks: str, timeout_s: float = _START_S) -> None:
        """Start a Task Publisher, let it do so many runs, and stop it: queues are declared and the worker is warm."""
        self.accept(runs, *tasks)
        with self.looking() as database, self.publisher() as publisher:
            database.wait_unended(0, timeout_s=timeout_s, alive=publisher)
