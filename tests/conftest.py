"""Django for all tests, with settings of their own: nothing of the developer's shell or `.shepherd/env` is read."""

import os

import django
import pytest

from tests.support import closing
from tests.support.folders import TEST_FOLDER

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.databases",
    "tests.support.web",
    "tests.support.broker",
    "tests.support.prefect",
    "tests.support.s3",
]


def _isolate(environ: os._Environ[str]) -> None:
    for name in [name for name in environ if _is_foreign(name)]:
        del environ[name]
    environ.update(
        {
            "DJANGO_SETTINGS_MODULE": "shepherd.site.settings",
            "SHEPHERD_ENV_FILE": "",
            # Can't be opened: a test that needs a database asks for one.
            "SHEPHERD_DATABASE_URL": "sqlite:////nonexistent/ask-for-the-fixture-database.sqlite3",
            "SHEPHERD_SECRET_KEY": "of the tests",
            "SHEPHERD_STORE": (TEST_FOLDER / "store").as_uri(),
            "PREFECT_HOME": str(TEST_FOLDER / "prefect-home"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
    )


def _is_foreign(name: str) -> bool:
    return name.startswith(("SHEPHERD_", "PREFECT_")) and not name.startswith("SHEPHERD_TEST_")


_isolate(os.environ)
django.setup()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        closing.forget_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for section, lines in (("model", closing.left("model")), ("faults", sorted(closing.left("faults")))):
        if lines:
            terminalreporter.section(section)
            for line in lines:
                terminalreporter.write_line(line)
