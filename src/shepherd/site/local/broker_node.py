"""A RabbitMQ node of one's own: for `make run` beside the system's, and for the tests."""

import base64
import hashlib
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shepherd.broker.policies import RECOMMENDED
from shepherd.errors import BrokerUnavailableError, ConfigurationError
from shepherd.site.local.place import Place

#: Debian's wrappers in /usr/sbin change to the user `rabbitmq` and refuse all others but root; these don't.
_SCRIPTS: Final = Path("/usr/lib/rabbitmq/bin")
#: How long a node may take to answer, on a machine that is busy with a whole test suite.
_START_S: Final = 90.0
#: A graceful stop flushes to disk; past this the node is killed.
_STOP_S: Final = 20.0
_POLL_S: Final = 0.1

_CONFIG: Final = {
    "loopback_users.guest": "true",
    "disk_free_limit.absolute": "50MB",
    "vm_memory_high_watermark.absolute": "1GB",
    "consumer_timeout": "10800000",
    "log.console": "false",
    "log.file.level": "warning",
}

_ADVANCED: Final = (
    "[{{kernel, [{{inet_dist_use_interface, {address}}}]}}, {{ra, [{{wal_max_size_bytes, 16777216}}]}}].\n"
)

_GREETING: Final = b"AMQP\x00\x00\x09\x01"


class BrokerNode:
    """One RabbitMQ node with its configuration, data, cookie and epmd in one folder, reachable from this machine only
    unless its place is elsewhere.

    Several can live on one machine, beside the system's own, as long as folders and ports differ. What `start` has
    started is gone after `stop` or `kill`, its epmd included; the data stays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        dist_port: int,
        epmd_port: int,
        config: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        has_own_epmd: bool = True,
        place: Place | None = None,
    ) -> None:
        """Start nothing yet.

        `config` adds to the lines of `rabbitmq.conf` and replaces those of the same name. Without an epmd of its own,
        the node registers with one that runs on `epmd_port` already, as the nodes of a cluster have to.
        """
        self._plugins = tuple(plugins)
        self._place = place or Place()
        self._folder = folder.absolute()
        self._config = {**_CONFIG, **(config or {})}
        self._has_own_epmd = has_own_epmd
        self._port = port
        self._dist_port = dist_port
        self._epmd_port = epmd_port
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self._place.address}:{self._port}/"

    @property
    def name(self) -> str:
        return f"shepherd-{self._port}@{self._place.host}"

    @property
    def ctl_file(self) -> Path:
        """A script that is `rabbitmqctl` for this node, for people and for `manage.py doctor`."""
        return self._folder / "rabbitmqctl"

    def environment(self) -> dict[str, str]:
        """Return the whole environment for `command` and `epmd_command`."""
        folder = self._folder
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            # Without it every node and every rabbitmqctl starts two resolver processes that outlive it for a moment.
            "ERL_INETRC": str(folder / "inetrc"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": self._place.address,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "node.pid"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            # The script then execs the Erlang machine: the process started is the node, and takes the signals.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +SDcpu 1:1 +SDio 2 +sbwt none -noinput -start_epmd false",
        }

    def command(self) -> list[str]:
        """Return the node's command: in the foreground, graceful on SIGTERM, in need of `epmd_command` beside it."""
        return [str(_SCRIPTS / "rabbitmq-server")]

    def epmd_command(self) -> list[str]:
        """Return the command of the name server that the node registers with; it stays in the foreground."""
        return ["epmd", "-address", self._place.address, "-port", str(self._epmd_port)]

    def prepare(self) -> None:
        """Write the configuration. `start` does it too; a supervisor that runs the two commands calls this first."""
        if not _SCRIPTS.is_dir():
            raise ConfigurationError(f"RabbitMQ is not installed: there is no {_SCRIPTS}")
        for folder in (self._folder, self._folder / "data", self._folder / "log"):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder.joinpath("definitions.json").write_text(json.dumps(_definitions(), indent=2))
        self._folder.joinpath("rabbitmq.conf").write_text(self._config_text())
        self._folder.joinpath("advanced.config").write_text(_ADVANCED.format(address=self._place.erlang_address()))
        self._folder.joinpath("enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        self._folder.joinpath("inetrc").write_text(self._place.inetrc())
        self._write_ctl_file()
        self._write_cookie()

    def _config_text(self) -> str:
        own = {
            "listeners.tcp.1": f"{self._place.address}:{self._port}",
            "load_definitions": str(self._folder / "definitions.json"),
        }
        return "".join(f"{name} = {value}\n" for name, value in {**own, **self._config}.items())

    def _write_ctl_file(self) -> None:
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self._ctl_environment().items()]
        command = shlex.join([*self._place.enter, str(_SCRIPTS / "rabbitmqctl")])
        lines = ["#!/bin/sh", "# rabbitmqctl for this node.", *exports, f'exec {command} "$@"']
        self.ctl_file.write_text("\n".join(lines) + "\n")
        self.ctl_file.chmod(0o700)

    def _ctl_environment(self) -> dict[str, str]:
        return self.environment() | {"RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none -start_epmd false"}

    def _write_cookie(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)

    def start(self) -> None:
        """Start the node and return when AMQP answers.

        Raises:
            BrokerUnavailableError: It ended or didn't answer in time; nothing of it is left running.
            ConfigurationError: RabbitMQ is not installed.
        """
        self.prepare()
        with self._folder.joinpath("log", "console.log").open("ab") as console:
            if self._has_own_epmd:
                self._epmd = self._spawn(self.epmd_command(), console.fileno())
                self._await_port(self._epmd_port, self._epmd)
            self._server = self._spawn(self.command(), console.fileno())
        try:
            self._await_amqp(self._server)
        except BrokerUnavailableError:
            self.kill()
            raise

    def answers(self) -> bool:
        """Return whether AMQP does, right now; a node that is cut off from most of its cluster doesn't."""
        return _answers((self._place.address, self._port), _GREETING)

    def _spawn(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C at the terminal is the supervisor's to pass on.
        # And an end with whoever started it, however that ended.
        return subprocess.Popen(  # noqa: S603  # our own command
            ["setpriv", "--pdeathsig=KILL", "--", *self._place.enter, *command],  # noqa: S607  # util-linux, wherever it is
            cwd=self._folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def _await_amqp(self, server: subprocess.Popen[bytes]) -> None:
        self._await_port(self._port, server, greeting=_GREETING)

    def _await_port(self, port: int, process: subprocess.Popen[bytes], *, greeting: bytes = b"") -> None:
        deadline = time.monotonic() + _START_S
        while not _answers((self._place.address, port), greeting):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BrokerUnavailableError(f"{process.args!r} did not start, see {self._folder / 'log'}")
            # Nothing tells of it: whether a port answers can only be tried.
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop the node gracefully, then its epmd. Safe to call again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop the node as a power cut would. Safe to call again."""
        self._end(signal.SIGKILL)

    def _end(self, sent: signal.Signals) -> None:
        server, self._server = self._server, None
        epmd, self._epmd = self._epmd, None
        if server is not None:
            _end_group(server, sent)
        if epmd is not None:
            _end_group(epmd, signal.SIGKILL)

    def ctl(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Return what `rabbitmqctl` prints for these arguments.

        Raises:
            subprocess.CalledProcessError: It failed; `stderr` says why.
        """
        return subprocess.run(  # noqa: S603  # our own command
            [*self._place.enter, str(_SCRIPTS / "rabbitmqctl"), "--quiet", *arguments],
            env=self._ctl_environment(),
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        ).stdout


def _definitions() -> dict[str, Any]:
    """Return what the node has from its first start on. RabbitMQ makes nothing by itself where this is given."""
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": "guest", "password_hash": _password_hash("guest"), "tags": "administrator", "limits": {}}],
        "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
        "policies": [
            {
                "vhost": "/",
                "name": policy.name,
                "pattern": policy.pattern,
                "apply-to": "queues",
                "definition": dict(policy.definition),
                "priority": 0,
            }
            for policy in RECOMMENDED
        ],
    }


def _password_hash(password: str) -> str:
    # As RabbitMQ salts; a fixed salt, since everybody knows this password.
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _answers(address: tuple[str, int], greeting: bytes) -> bool:
    try:
        with socket.create_connection(address, timeout=1.0) as connection:
            connection.sendall(greeting)
            return not greeting or bool(connection.recv(1))
    except OSError:
        return False


def _end_group(process: subprocess.Popen[bytes], sent: signal.Signals) -> None:
    """Signal the process, wait for it, and leave nothing that it had started."""
    process.send_signal(sent)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # What else lives in its group would notice its death only by and by.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
