"""Prefect's server with the settings of `make run`, and what a test asks of its API."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shepherd.site.local.config import LocalConfig
from shepherd.site.local.programs import programs
from tests.support.folders import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_until

_START_S = 90.0


class PrefectApi:
    """A running server's API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)

    def answers(self) -> bool:
        try:
            return self._client.get("/health").is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, document: Any) -> Any:
        return self.call("POST", path, document)

    def call(self, method: str, path: str, document: Any) -> Any:
        """Return what Prefect answers. May be called from any thread."""
        answer = wait_until(lambda: self._call(method, path, document), timeout_s=30, what=f"an answer to {path}")[0]
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _call(self, method: str, path: str, document: Any) -> list[httpx.Response]:
        answer = self._client.request(method, path, json=document)
        # On SQLite a call that comes while another one writes is refused.
        return [] if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else [answer]

    def flow_runs(self, run_id: Any) -> list[dict[str, Any]]:
        """Return all flow runs that claim to show a run."""
        found: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"shepherd:{run_id}"]}}}
        )
        return found

    def task_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        by = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.post("/task_runs/filter", by)
        return found


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectApi]:
    folder = tmp_path_factory.mktemp("prefect")
    config = LocalConfig.from_env({"SHEPHERD_HOME": str(folder), "SHEPHERD_PREFECT_PORT": str(free_port())}, root=ROOT)
    program = next(program for program in programs(config) if program.name == "prefect")
    settings = config.settings(secret_key="")
    with _running(program.command, {**os.environ, **settings, **program.environ}, folder / "server.log"):
        api = PrefectApi(settings["PREFECT_API_URL"])
        wait_until(api.answers, timeout_s=_START_S, what="Prefect's server")
        yield api
        api.close()


@contextmanager
def _running(command: Sequence[str], environ: Mapping[str, str], log_file: Path) -> Iterator[None]:
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
