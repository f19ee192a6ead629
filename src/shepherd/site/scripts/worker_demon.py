"""The Task Publisher, under the name that it always had."""

import os
from pathlib import Path

from shepherd.environment import with_env_file
from shepherd.publisher import daemon

#: Where a Prefect server listens that nobody told to listen elsewhere.
_PREFECT_API_URL = "http://127.0.0.1:4200/api"


def run() -> None:
    _set_prefect_environment()
    daemon.main()


def _set_prefect_environment() -> None:
    """Hand Prefect, which reads the environment when it is imported, what `.shepherd/env` says of it."""
    found = with_env_file(os.environ, start=Path.cwd())
    defaults = {
        "PREFECT_API_URL": _PREFECT_API_URL,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A question before each call, which a server without such protection only refuses.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    }
    prefect = {name: value for name, value in found.items() if name.startswith("PREFECT_")}
    os.environ.update({**defaults, **prefect})
