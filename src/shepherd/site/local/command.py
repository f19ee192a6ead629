"""`run` and `demo`."""

import json
import os
import signal
import threading
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from shepherd.errors import ConfigurationError
from shepherd.site.local import flights, ports
from shepherd.site.local.config import LocalConfig
from shepherd.site.local.first_run import show_first_run
from shepherd.site.local.pipeline import body
from shepherd.site.local.system import LocalSystem, running

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED: Final = 130
_POLL_S: Final = 0.5


def main(arguments: Sequence[str]) -> int:
    """Start the system and return the exit status: of `demo`, 0 only if its pipeline succeeded."""
    parser = ArgumentParser(prog="shepherd.site.local", description="The whole system on one machine.")
    parser.add_argument("what", choices=["run", "demo"], help="run until Ctrl-C, or demonstrate one pipeline and end")
    is_demo = parser.parse_args(arguments).what == "demo"
    console = Console(soft_wrap=True)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        return _serve(console, is_demo=is_demo)
    except ConfigurationError as error:
        console.print(str(error), style="bold red", highlight=False, markup=False)
        return 2
    except httpx.HTTPError as error:
        console.print(f"The API failed: {error}", style="bold red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED if is_demo else 0
    finally:
        console.print("Stopped.")


def _interrupt(*_: Any) -> None:
    # Once: a second Ctrl-C must not keep the first one from leaving nothing behind.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve(console: Console, *, is_demo: bool) -> int:
    config = LocalConfig.from_env(os.environ, root=Path.cwd())
    console.print(f"Starting; what the processes say is in {config.home / 'log'}", highlight=False)
    for sentence in ports.describe_given(config.given()):
        console.print(sentence, style="yellow", highlight=False, markup=False)
    with flights.serving(config.home / "demo") as data_url:
        environ = {**os.environ, "SHEPHERD_DATA_URL_ALLOW": _allowed(os.environ, data_url)}
        with running(config, environ=environ) as system:
            return _demonstrate(system, data_url, console) if is_demo else _stay(system, data_url, console)


def _allowed(environ: os._Environ[str], data_url: str) -> str:
    given = environ.get("SHEPHERD_DATA_URL_ALLOW", "")
    return ",".join(filter(None, [given, data_url.split("/")[2]]))


def _demonstrate(system: LocalSystem, data_url: str, console: Console) -> int:
    has_succeeded = show_first_run(system, data_url=data_url, console=console)
    console.print("Stopping everything …")
    return 0 if has_succeeded else 1


def _stay(system: LocalSystem, data_url: str, console: Console) -> int:
    shown = system.config.home / "demo" / "shown"
    if not shown.exists() and show_first_run(system, data_url=data_url, console=console):
        shown.touch()
    _say_how_to_go_on(system, data_url, console)
    while system.supervisor.is_running:
        threading.Event().wait(_POLL_S)
    console.print("supervisord ended by itself: everything is stopped.", style="bold red")
    return 1


def _say_how_to_go_on(system: LocalSystem, data_url: str, console: Console) -> None:
    credentials, page = system.credentials, system.config.page_url
    command = (
        f"curl -X POST {page}/api/v1/runs -H 'Authorization: Bearer {credentials.token}' "
        f"-H 'Content-Type: application/json' -d '{json.dumps(body(data_url))}'"
    )
    lines = [
        "",
        f"The page:   {page}/",
        f"The login:  {credentials.username} / {credentials.password}",
        f"The API:    {page}/api/docs",
        "Ctrl-C stops everything. Another run of the first pipeline:",
        "",
        command,
        "",
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
