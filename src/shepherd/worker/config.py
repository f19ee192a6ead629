"""A worker's settings: the command line above environment variables above `.shepherd/env`."""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from shepherd.broker.addresses import broker_addresses
from shepherd.environment import with_env_file
from shepherd.errors import ConfigurationError
from shepherd.store import open_store

_BROKER: Final = "amqp://guest:guest@127.0.0.1:5672/"
_MOST_SLOTS: Final = 64
_MOST_MEGABYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is told from outside."""

    name: str
    #: `amqp://user:password@host:port/vhost`, or `amqps`; several nodes of a cluster with commas between.
    broker_url: str
    store_url: str
    #: How many tasks are executed at once, each in a process of its own.
    slots: int
    #: Seconds between two heartbeats.
    beat_s: float
    #: How many seconds a task may run before it is claimed and its delivery acked.
    hold_s: float
    #: Where replies lie until they are confirmed.
    spool: str
    #: How many bytes of them.
    spool_limit: int
    #: Folder with one file a secret; empty where there is none.
    secrets: str = ""

    @classmethod
    def read(
        cls, arguments: Sequence[str], environ: Mapping[str, str], *, default_name: str, tasks: Sequence[str]
    ) -> "WorkerConfig":
        """Read the settings once.

        Raises:
            ConfigurationError: One can't be used; the text names the variable.
            SystemExit: Help was asked for, or an option is unknown.
        """
        settings = with_env_file(environ, start=Path.cwd())
        default_slots = min(4, os.cpu_count() or 1)
        options = _parser(default_name, tasks, default_slots=default_slots).parse_args(arguments)
        config = cls(
            name=options.name or settings.get("SHEPHERD_WORKER_NAME") or default_name,
            broker_url=options.broker or settings.get("SHEPHERD_BROKER_URL") or _BROKER,
            store_url=options.store or settings.get("SHEPHERD_STORE") or (Path.cwd() / ".shepherd" / "store").as_uri(),
            slots=_slots(options.slots or settings.get("SHEPHERD_SLOTS") or str(default_slots)),
            beat_s=_seconds(settings, "SHEPHERD_BEAT_S", 10.0),
            hold_s=_seconds(settings, "SHEPHERD_HOLD_S", 20.0),
            spool=str(Path(settings.get("SHEPHERD_SPOOL") or Path(".shepherd") / "spool").absolute()),
            spool_limit=_megabytes(settings, "SHEPHERD_SPOOL_MB", 256),
            secrets=_folder(settings, "SHEPHERD_SECRETS_FOLDER"),
        )
        return config.checked()

    def checked(self) -> "WorkerConfig":
        broker_addresses(self.broker_url)
        open_store(self.store_url)
        return self

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "WorkerConfig":
        return cls(**json.loads(text))


def _parser(name: str, tasks: Sequence[str], *, default_slots: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"The worker {name}: executes the tasks {', '.join(tasks)}.",
        epilog="An option counts more than its variable, and a variable more than a line in .shepherd/env, "
        "which is looked for in the working directory and above.",
    )
    add = parser.add_argument
    add("--broker", metavar="URL", help=f"address of RabbitMQ; SHEPHERD_BROKER_URL, default {_BROKER}")
    add("--store", metavar="URL", help="where data lies; SHEPHERD_STORE, default .shepherd/store in this directory")
    add("--slots", metavar="N", help=f"tasks executed at once; SHEPHERD_SLOTS, default {default_slots} on this machine")
    add("--name", metavar="NAME", help=f"what logs and pages call it; SHEPHERD_WORKER_NAME, default {name}")
    return parser


def _folder(settings: Mapping[str, str], variable: str) -> str:
    text = settings.get(variable, "")
    if text and not Path(text).is_dir():
        raise ConfigurationError(f"{variable}: {text!r} is no folder")
    return str(Path(text).absolute()) if text else ""


def _slots(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_SLOTS:
        return int(text)
    raise ConfigurationError(f"SHEPHERD_SLOTS (--slots): {text!r} must be a number from 1 to {_MOST_SLOTS}")


def _megabytes(settings: Mapping[str, str], variable: str, default: int) -> int:
    text = settings.get(variable) or str(default)
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_MEGABYTES:
        return int(text) * 1024 * 1024
    raise ConfigurationError(f"{variable}: {text!r} must be a number from 1 to {_MOST_MEGABYTES}")


def _seconds(settings: Mapping[str, str], variable: str, default: float) -> float:
    text = settings.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{variable}: {text!r} must be a number of seconds above 0")
    return value
