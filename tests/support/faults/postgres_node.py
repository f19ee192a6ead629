"""A PostgreSQL that a test may kill, stop and start: what it has committed is there again afterwards."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, as_own_user, initialise, postgres_binaries
from tests.support.waiting import wait_until

#: A kill of processes loses nothing that was handed to the kernel, so only a power cut would need `fsync`.
_OPTIONS = ("-cfsync=off", "-cmax_connections=200")


class PostgresNode:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = PostgresServer(port=free_port())
        self._process: subprocess.Popen[bytes] | None = None
        initialise(folder)

    def start(self, *, environ: Mapping[str, str] | None = None) -> None:
        """Return when it answers; `environ` comes beside this process's own variables."""
        command: list[str | Path] = [
            postgres_binaries() / "postgres",
            "-D",
            self.folder / "data",
            "-k",
            self.folder,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.server.port),
            *_OPTIONS,
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # Behind the change of user: what is preloaded may leave files that are the user's.
                [*as_own_user(), "env", *(f"{name}={value}" for name, value in (environ or {}).items()), *command],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_until(self.server.answers, timeout_s=60, what=f"PostgreSQL on port {self.server.port}")

    def kill(self) -> None:
        """Kill it with all its processes, as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        # Each has a session of its own; those that outlive the first would keep its shared memory for a moment.
        for part in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                part.kill()
        process.wait(timeout=60)

    def stop(self) -> None:
        """Shut it down fast: clients are cut off, everything is written."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


@contextmanager
def postgres_node() -> Iterator[PostgresNode]:
    # Not under .shepherd: PostgreSQL refuses to run as root, and its user may not be able to enter the work tree.
    folder = Path(tempfile.mkdtemp(prefix="shepherd-postgres-"))
    try:
        node = PostgresNode(folder)
        node.start()
        try:
            yield node
        finally:
            node.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
