"""A RabbitMQ and a PostgreSQL that belong to one benchmark, and a folder for everything that it writes."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from bench.support.processes import BENCH_FOLDER
from shepherd.site.local.broker_node import BrokerNode
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, postgres_running

#: PostgreSQL as it is installed: what it has committed survives a power cut. Only the connections are more.
_POSTGRES: Final = {"max_connections": "200"}


@dataclass(slots=True, kw_only=True)
class Services:
    """What all contenders share."""

    folder: Path
    broker: BrokerNode
    postgres: PostgresServer
    _databases: int = field(default=0)

    def vhost_url(self, name: str) -> str:
        """Create a part of the broker that nobody else sees; return its URL."""
        self.broker.ctl("add_vhost", name)
        self.broker.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return urlunsplit(urlsplit(self.broker.url)._replace(path=f"/{name}"))

    def new_database(self, *, template: str = "template1") -> str:
        """Create a database in PostgreSQL; return its URL."""
        self._databases += 1
        return self.postgres.create_database(f"bench_{self._databases}", template=template)

    def broker_version(self) -> str:
        return self.broker.ctl("version").strip()

    def postgres_version(self) -> str:
        with psycopg.connect(self.postgres.url()) as connection:
            return str(connection.info.parameter_status("server_version"))


@contextmanager
def services_running() -> Iterator[Services]:
    """Start both, and leave nothing behind, also after Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupt)
    BENCH_FOLDER.mkdir(parents=True, exist_ok=True)
    with ExitStack() as at_end:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=BENCH_FOLDER))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        broker = BrokerNode(folder / "rabbitmq", port=free_port(), dist_port=free_port(), epmd_port=free_port())
        at_end.callback(broker.kill)
        broker.start()
        postgres = at_end.enter_context(postgres_running(_POSTGRES))
        yield Services(folder=folder, broker=broker, postgres=postgres)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
