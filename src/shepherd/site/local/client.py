"""The few calls of the HTTP API that the first pipeline needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from shepherd.site.local.system import LocalSystem


@contextmanager
def api_client(system: LocalSystem) -> Iterator[httpx.Client]:
    """Yield a client that has the system's address and token."""
    headers = {"Authorization": f"Bearer {system.credentials.token}"}
    # No proxy of the environment: it couldn't reach this machine's loopback.
    with httpx.Client(
        base_url=f"{system.config.page_url}/api/v1", headers=headers, timeout=30.0, trust_env=False
    ) as client:
        yield client


def submit(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/runs", json=body)
    answer.raise_for_status()
    run: dict[str, Any] = answer.json()
    return run


def read_run(client: httpx.Client, run_id: str) -> dict[str, Any]:
    answer = client.get(f"/runs/{run_id}")
    answer.raise_for_status()
    run: dict[str, Any] = answer.json()
    return run
