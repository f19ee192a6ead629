"""What `make run` is told from outside, and what follows from it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from shepherd.errors import ConfigurationError

HOST: Final = "127.0.0.1"
#: The broker takes this many ports in a row: AMQP, the node's name server, the node's own.
BROKER_PORTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """One local system. Two can run side by side if their folders and ports differ."""

    #: Holds `manage.py` and `projects/`.
    root: Path
    #: Holds everything that is written.
    home: Path
    web_port: int
    broker_port: int
    prefect_port: int
    #: The server's settings as given from outside; an empty address means a private service.
    broker_url: str
    database_url: str
    prefect_api_url: str
    store_url: str
    projects_folder: Path
    is_prefect_on: bool

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, root: Path) -> "LocalConfig":
        """Read the settings; what isn't set lies below `root`.

        Raises:
            ConfigurationError: One can't be used; the text names the variable.
        """
        home = Path(environ.get("SHEPHERD_HOME") or root / ".shepherd").absolute()
        return cls(
            root=root,
            home=home,
            web_port=_port(environ, "SHEPHERD_WEB_PORT", 8000),
            broker_port=_port(environ, "SHEPHERD_BROKER_PORT", 5682),
            prefect_port=_port(environ, "SHEPHERD_PREFECT_PORT", 4210),
            broker_url=environ.get("SHEPHERD_BROKER_URL", ""),
            database_url=environ.get("SHEPHERD_DATABASE_URL") or f"sqlite:///{quote(str(home / 'shepherd.sqlite3'))}",
            prefect_api_url=environ.get("PREFECT_API_URL", ""),
            store_url=environ.get("SHEPHERD_STORE") or (home / "store").as_uri(),
            projects_folder=Path(environ.get("SHEPHERD_PROJECTS") or root / "projects").absolute(),
            is_prefect_on=environ.get("SHEPHERD_PREFECT", "on").lower() not in {"off", "0", "false", "no"},
        )

    @property
    def has_own_broker(self) -> bool:
        return not self.broker_url

    @property
    def has_own_prefect(self) -> bool:
        return self.is_prefect_on and not self.prefect_api_url

    @property
    def page_url(self) -> str:
        return f"http://{HOST}:{self.web_port}"

    def given(self) -> dict[str, str]:
        """Return the services that are used in place of private ones, by the variable that names them."""
        prefect = {"PREFECT_API_URL": self.prefect_api_url} if self.is_prefect_on else {}
        return {name: url for name, url in {"SHEPHERD_BROKER_URL": self.broker_url, **prefect}.items() if url}

    def ports(self) -> dict[str, list[int]]:
        """Return the ports that have to be free, by the variable that moves them."""
        ports = {"SHEPHERD_WEB_PORT": [self.web_port]}
        if self.has_own_broker:
            ports["SHEPHERD_BROKER_PORT"] = list(range(self.broker_port, self.broker_port + BROKER_PORTS))
        if self.has_own_prefect:
            ports["SHEPHERD_PREFECT_PORT"] = [self.prefect_port]
        return ports

    def settings(self, *, secret_key: str) -> dict[str, str]:
        """Return the settings for every process of the system, and for those started by hand beside it."""
        settings = {
            "SHEPHERD_BROKER_URL": self.broker_url or f"amqp://guest:guest@{HOST}:{self.broker_port}/",
            "SHEPHERD_DATABASE_URL": self.database_url,
            "SHEPHERD_STORE": self.store_url,
            "SHEPHERD_SPOOL": str(self.home / "spool"),
            "SHEPHERD_PROJECTS": str(self.projects_folder),
            "SHEPHERD_WEB_PORT": str(self.web_port),
            "SHEPHERD_SECRET_KEY": secret_key,
            "SHEPHERD_PREFECT": "on" if self.is_prefect_on else "off",
        }
        if self.has_own_broker:
            settings["SHEPHERD_BROKER_CTL"] = shlex.quote(str(self.home / "rabbitmq" / "rabbitmqctl"))
        if self.is_prefect_on:
            settings["PREFECT_API_URL"] = self.prefect_api_url or f"http://{HOST}:{self.prefect_port}/api"
            settings["PREFECT_HOME"] = str(self.home / "prefect")
            # Without an address Prefect would start a server of its own inside the process.
            settings["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
            settings["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
            settings["DO_NOT_TRACK"] = "1"
        return settings


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535 - BROKER_PORTS:
        raise ConfigurationError(f"{name}: {text!r} is no port")
    return int(text)
