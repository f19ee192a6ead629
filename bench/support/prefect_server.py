"""Prefect's server with the settings of `make run`, on SQLite or on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from bench.support.processes import ROOT, bare_environ, process
from bench.support.services import Services
from shepherd.site.local.config import LocalConfig
from shepherd.site.local.programs import programs
from tests.support.ports import free_port
from tests.support.waiting import wait_until

_START_S: Final = 120.0


class PrefectServer:
    """Knows which flow runs its API shows as Completed."""

    def __init__(self, api_url: str, environ: dict[str, str]) -> None:
        #: What Prefect's clients need, on both sides.
        self.environ = environ
        self._client = httpx.Client(base_url=api_url, timeout=60.0, trust_env=False)

    def answers(self) -> bool:
        try:
            return self._client.get("/health").is_success
        except httpx.HTTPError:
            return False

    def completed(self, flow: str) -> int:
        """Return how many runs of a flow are Completed."""
        filters: dict[str, Any] = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        answer = self._client.post("/flow_runs/count", json=filters)
        answer.raise_for_status()
        return int(answer.json())

    def close(self) -> None:
        self._client.close()


@contextmanager
def prefect_running(services: Services, *, database: str) -> Iterator[PrefectServer]:
    folder = services.folder / f"prefect_{database}"
    folder.mkdir()
    given = {"SHEPHERD_HOME": str(folder), "SHEPHERD_PREFECT_PORT": str(free_port())}
    config = LocalConfig.from_env(given, root=ROOT)
    program = next(program for program in programs(config) if program.name == "prefect")
    settings = config.settings(secret_key="")
    environ = {name: value for name, value in settings.items() if not name.startswith("SHEPHERD_")}
    own = {**bare_environ(), **environ, **program.environ}
    if database == "postgres":
        url = services.new_database().replace("postgresql://", "postgresql+asyncpg://")
        own["PREFECT_API_DATABASE_CONNECTION_URL"] = url
    with process(program.command, environ=own, log=folder / "server.log"):
        server = PrefectServer(environ["PREFECT_API_URL"], environ)
        wait_until(server.answers, what=f"Prefect's server on {database}", timeout_s=_START_S)
        try:
            yield server
        finally:
            server.close()
