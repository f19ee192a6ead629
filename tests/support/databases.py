"""A fresh, migrated database for each test that asks for one.

Django's default connection is pointed at it for all threads. Nothing is rolled back and nothing is shared: threads,
commits and conditional updates behave as they do in production.
"""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.local import Local
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from shepherd.site.config import database_settings
from tests.support.postgres import PostgresServer

_POSTGRES_TEMPLATE = "shepherd_template"
_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database without rows; the test runs once on each engine."""
    url: str = request.getfixturevalue(f"{request.param}_database")
    return url


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "shepherd.sqlite3"
    shutil.copy(sqlite_template, file)
    url = f"sqlite:///{file}"
    with pointed_at(url):
        yield url


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    url = postgres_server.create_database(name, template=postgres_template)
    with pointed_at(url):
        yield url
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "template.sqlite3"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    migrate(postgres_server.create_database(_POSTGRES_TEMPLATE))
    return _POSTGRES_TEMPLATE


def migrate(url: str) -> None:
    with pointed_at(url):
        call_command("migrate", verbosity=0)


@contextmanager
def pointed_at(url: str) -> Iterator[None]:
    """Point Django's default connection, in every thread, at `url`; at the end close what any thread opened there."""
    before = connections.settings["default"]
    opened: list[BaseDatabaseWrapper] = []

    def note(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
        opened.append(connection)

    connection_created.connect(note)
    _replace(connections.configure_settings({"default": database_settings(url)})["default"])
    try:
        yield
    finally:
        connection_created.disconnect(note)
        for connection in opened:
            connection.inc_thread_sharing()
            connection.close()
        _replace(before)


def _replace(settings: dict[str, Any]) -> None:
    connections.settings["default"] = settings
    # Django keeps a connection a thread and can't list them; without the old storage no thread finds its old one.
    connections._connections = Local(connections.thread_critical)  # type: ignore[attr-defined]
