"""The server's settings, read once from the environment: the composition root's own input."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from shepherd.errors import ConfigurationError
from shepherd.pipelines.data_urls import DataSources

#: The first that returns what it stores.
_OLDEST_SQLITE: Final = (3, 35, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What the web process and the Task Publisher are told from outside."""

    broker_url: str
    #: What runs `rabbitmqctl` for that broker, as in `sudo rabbitmqctl`; "off" for not at all, empty to find out.
    broker_ctl: str
    #: `http://user:password@host:15672`; empty where the management API isn't to be asked.
    broker_management_url: str
    database_url: str
    store_url: str
    projects_folder: Path
    is_prefect_on: bool
    #: How many flows may keep Prefect busy at once; 0 lets the database behind Prefect decide (4 on SQLite, 16 else).
    prefect_slots: int
    prefect_api_url: str
    prefect_ui_url: str
    #: Where `data_url` may lead, beside the public internet.
    data_sources: DataSources
    #: Bytes, and seconds, of one `data_url`.
    data_url_size: int
    data_url_time: timedelta
    #: How often the Task Publisher looks for what nobody told it.
    sweep: timedelta
    #: How long a worker is believed to be there after its last sign of life.
    worker_gone_after: timedelta
    #: How long a claimed attempt is a worker's without a heartbeat that names it.
    lease: timedelta
    secret_key: str
    allowed_hosts: tuple[str, ...]
    is_debug: bool

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, folder: Path) -> "ServerConfig":
        """Read the settings; relative defaults lie in `folder`.

        Raises:
            ConfigurationError: One can't be used; the text names the variable.
        """
        data = folder / ".shepherd"
        beat_s = _number(environ, "SHEPHERD_BEAT_S", 10.0)
        return cls(
            broker_url=environ.get("SHEPHERD_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/"),
            broker_ctl=environ.get("SHEPHERD_BROKER_CTL", ""),
            broker_management_url=_web_url(environ, "SHEPHERD_BROKER_MANAGEMENT_URL"),
            database_url=environ.get("SHEPHERD_DATABASE_URL", f"sqlite:///{quote(str(data / 'shepherd.sqlite3'))}"),
            store_url=environ.get("SHEPHERD_STORE", (data / "store").as_uri()),
            projects_folder=Path(environ.get("SHEPHERD_PROJECTS", folder / "projects")),
            is_prefect_on=_switch(environ, "SHEPHERD_PREFECT", default=True),
            prefect_slots=int(_number(environ, "SHEPHERD_PREFECT_SLOTS", 0)),
            prefect_api_url=environ.get("PREFECT_API_URL", "") or "http://127.0.0.1:4200/api",
            prefect_ui_url=environ.get("SHEPHERD_PREFECT_UI_URL", "") or _prefect_page(environ),
            data_sources=DataSources(
                allow=_names(environ.get("SHEPHERD_DATA_URL_ALLOW", "")),
                folders=_folders(environ, "SHEPHERD_DATA_FOLDERS"),
                buckets=_names(environ.get("SHEPHERD_DATA_BUCKETS", "")),
            ),
            data_url_size=int(_number(environ, "SHEPHERD_DATA_URL_MB", 65_536.0) * 1024**2),
            data_url_time=timedelta(seconds=_number(environ, "SHEPHERD_DATA_URL_S", 3600.0)),
            sweep=timedelta(seconds=_number(environ, "SHEPHERD_SWEEP_S", 1.0)),
            worker_gone_after=timedelta(seconds=3 * beat_s),
            lease=timedelta(seconds=_number(environ, "SHEPHERD_LEASE_S", 60.0)),
            secret_key=environ.get("SHEPHERD_SECRET_KEY", ""),
            allowed_hosts=_names(environ.get("SHEPHERD_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")),
            is_debug=_switch(environ, "SHEPHERD_DEBUG", default=False),
        )


def database_settings(url: str) -> dict[str, Any]:
    """Return Django's settings for `sqlite:////path` or `postgresql://user:password@host:port/name?parameter=value`.

    The parameters are those of PostgreSQL's client, as `sslmode`, and `prepared_statements`, which may be off.

    Raises:
        ConfigurationError: It is neither, something in it has no meaning or can't be told apart, or this machine's
            SQLite is too old. No password stands in the text.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _unclear("host and port can't be read") from None
    if parts.fragment:
        raise _unclear("there is a '#' in it")
    if parts.scheme == "sqlite":
        return _sqlite_settings(parts)
    if parts.scheme in {"postgres", "postgresql"}:
        return _postgres_settings(parts, port=port)
    raise ConfigurationError(f"SHEPHERD_DATABASE_URL: {parts.scheme!r} is neither 'sqlite' nor 'postgresql'")


def _unclear(what: str) -> ConfigurationError:
    remedy = "in user, password and path write / ? # @ [ ] % as %2F %3F %23 %40 %5B %5D %25"
    return ConfigurationError(f"SHEPHERD_DATABASE_URL: {what}; {remedy}")


def _sqlite_settings(parts: SplitResult) -> dict[str, Any]:
    if parts.netloc or parts.query:
        raise ConfigurationError(
            "SHEPHERD_DATABASE_URL: SQLite takes an absolute path only, behind 'sqlite:////'; write ? in it as %3F"
        )
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        raise ConfigurationError(
            f"SHEPHERD_DATABASE_URL: SQLite is {sqlite3.sqlite_version} here, and has to be {oldest} or later"
        )
    # WAL lets readers go on beside the one writer; IMMEDIATE, since a transaction that reads first and writes later
    # fails at once when another one wrote in between; FULL, since an accepted run survives a power cut.
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
    # The fourth slash of `sqlite:////path` begins the path; the third one is the URL's.
    path = f"/{unquote(parts.path).lstrip('/')}"
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}


def _postgres_settings(parts: SplitResult, *, port: int | None) -> dict[str, Any]:
    if "@" in parts.path + parts.query:
        raise _unclear("there is an '@' behind the host")
    parameters = _parameters(parts.query, has_host=bool(parts.hostname))
    is_prepared = parameters.pop("prepared_statements", "on")
    if is_prepared not in {"on", "off"}:
        raise ConfigurationError("SHEPHERD_DATABASE_URL: prepared_statements is neither 'on' nor 'off'")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(port or ""),
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"connect_timeout": 5, **parameters},
        # Read by `pipelines/sql.py`.
        "PREPARED_STATEMENTS": is_prepared == "on",
    }


def _parameters(query: str, *, has_host: bool) -> dict[str, str]:
    if not query:
        return {}
    # Not at the top: it would be imported at each start, also with SQLite.
    from psycopg.pq import Conninfo

    stand_before = {"user", "password", "port", "dbname", "client_encoding", *(("host",) if has_host else ())}
    known = {"prepared_statements", *(option.keyword.decode() for option in Conninfo.get_defaults())}
    parameters: dict[str, str] = {}
    for name, _, value in (each.partition("=") for each in query.split("&")):
        if name not in known:
            # Not what it says: that may be a part of a password.
            like = get_close_matches(name, known, 1)
            hint = f", as {like[0]} would be" if like else ""
            raise _unclear(f"what stands behind the '?' is no parameter of PostgreSQL's client{hint}")
        if name in stand_before or name in parameters:
            raise ConfigurationError(
                f"SHEPHERD_DATABASE_URL: {name} may stand once, and before the '?' where that has a place for it, as "
                "in postgresql://user:password@host:port/name"
            )
        parameters[name] = unquote(value)
    return parameters


def _prefect_page(environ: Mapping[str, str]) -> str:
    return environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")


def _web_url(environ: Mapping[str, str], name: str) -> str:
    url = environ.get(name, "")
    if url and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
        raise ConfigurationError(f"{name}: must be http://user:password@host:port or https://…")
    return url


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _folders(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    folders = _names(environ.get(name, ""))
    if wrong := [folder for folder in folders if not Path(folder).is_absolute() or ".." in Path(folder).parts]:
        raise ConfigurationError(f"{name}: {wrong[0]!r} must be the absolute path of a folder")
    return tuple(str(Path(folder)) for folder in folders)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        raise ConfigurationError(f"{name}: {text!r} is no number") from None
    if number < 0:
        raise ConfigurationError(f"{name}: {text!r} is below 0")
    return number


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, "").lower()
    if text in {"", "on", "1", "true", "yes"}:
        return default if not text else True
    if text in {"off", "0", "false", "no"}:
        return False
    raise ConfigurationError(f"{name}: {text!r} is neither 'on' nor 'off'")
