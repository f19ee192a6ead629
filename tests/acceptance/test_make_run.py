"""`make run` and `make demo` as they are started by hand, without make."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.folders import ROOT
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert started_from(tmp_path / "home") == []


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(("SHEPHERD_", "PREFECT_"))}
    return foreign | {
        "SHEPHERD_HOME": str(home),
        "SHEPHERD_WEB_PORT": str(free_port()),
        "SHEPHERD_BROKER_PORT": str(free_ports(3)),
        "SHEPHERD_PREFECT_PORT": str(free_port()),
    }


@pytest.fixture
def start(home: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(what: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "shepherd.site.local", what]
        with (tmp_path / "terminal").open("ab") as terminal:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=terminal, stderr=terminal)
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.terminate()
        process.wait(60)


def started_from(home: Path) -> list[tuple[int, str]]:
    """Number and command line of what runs and has to do with this folder, however it was started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(home) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append((process.pid, " ".join(process.cmdline())))
        except psutil.Error:
            continue
    return found


def has_started(word: str, home: Path) -> bool:
    return any(word in line for _, line in started_from(home))


def accepts(home: Path, environ: dict[str, str]) -> bool:
    """Whether a pipeline is accepted now."""
    file = home / "credentials.json"
    if not file.exists():
        return False
    headers = {"Authorization": f"Bearer {json.loads(file.read_text())['token']}"}
    body = {
        "pipeline_name": "one",
        "data_url": "",
        "project": "generic_transformations",
        "transformers_list": [{"name": "nobody_serves_this", "order_no": 1, "context": {}}],
    }
    address = f"http://127.0.0.1:{environ['SHEPHERD_WEB_PORT']}/api/v1/runs"
    try:
        return httpx.post(address, json=body, headers=headers, trust_env=False).status_code == httpx.codes.ACCEPTED
    except httpx.HTTPError:
        return False


def test_it_keeps_its_folder_to_itself_stops_whole_and_starts_again_within_15_s(
    start: Start, home: Path, environ: dict[str, str]
) -> None:
    # One story: each start costs the suite as much as everything that is asked of it here.
    first = start("run")
    wait_until(lambda: accepts(home, environ), timeout_s=60, what="a pipeline accepted")
    wait_until(lambda: has_started("erl_child_setup", home), timeout_s=60, what="the broker")
    login = (home / "credentials.json").read_text()

    assert start("run").wait(30) == 2
    assert accepts(home, environ)

    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 0
    assert started_from(home) == []

    begun = time.monotonic()
    second = start("run")
    wait_until(lambda: accepts(home, environ), timeout_s=60, what="a pipeline accepted again")
    assert time.monotonic() - begun < 15
    assert (home / "credentials.json").read_text() == login

    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert started_from(home) == []


def test_what_a_killed_one_left_is_ended_by_the_next_start(start: Start, home: Path, environ: dict[str, str]) -> None:
    environ["SHEPHERD_PREFECT"] = "off"
    killed = start("run")
    wait_until(lambda: accepts(home, environ), timeout_s=60, what="a pipeline accepted")
    supervisor = (home / "supervisord.pid").read_text()

    os.kill(int(supervisor), signal.SIGKILL)
    killed.kill()
    killed.wait()
    left = started_from(home)
    start("run")
    wait_until(lambda: (home / "supervisord.pid").read_text() != supervisor, timeout_s=60, what="another supervisord")

    assert left
    assert not {pid for pid, _ in left} & {pid for pid, _ in started_from(home)}
    wait_until(lambda: accepts(home, environ), timeout_s=60, what="a pipeline accepted again")


def test_a_taken_port_is_named_before_anything_starts(start: Start, home: Path, environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environ["SHEPHERD_PREFECT_PORT"]))):
        status = start("run").wait(30)

    assert status == 2
    assert "set SHEPHERD_PREFECT_PORT to another one" in (home.parent / "terminal").read_text()
    assert not (home / "shepherd.sqlite3").exists()
