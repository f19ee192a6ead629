"""What tests of the web process share: a folder of projects, a caller, and rows as the engine leaves them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings

from shepherd.pipelines import services, wakeup
from shepherd.wire.manifest import Manifest, TaskOffer

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class CountingBell(wakeup.Bell):
    """Counts rings, and rings nobody."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("nobody opens a broker here"))
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> CountingBell:
    counting = CountingBell()
    monkeypatch.setattr(wakeup, "_bell", counting)
    return counting


@pytest.fixture
def projects_folder(tmp_path: Path) -> Iterator[Path]:
    """Two projects: `ids_drr` with a flow, `generic_transformations` with workers."""
    folder = tmp_path / "projects"
    (folder / "ids_drr").mkdir(parents=True)
    (folder / "ids_drr" / "flow.py").touch()
    (folder / "generic_transformations" / "workers").mkdir(parents=True)
    with override_settings(SHEPHERD=replace(settings.SHEPHERD, projects_folder=folder)):
        yield folder


@pytest.fixture
def asha(database: str, projects_folder: Path, bell: CountingBell) -> User:
    """A caller, on a database, with projects."""
    # Without a password: hashing one takes longer than most tests.
    return User.objects.create_user("asha")


def pipeline(*names: str, **changes: Any) -> dict[str, Any]:
    """Return a document that asks for these tasks, in this order."""
    tasks = [{"name": name, "order_no": order_no, "context": {}} for order_no, name in enumerate(names, start=1)]
    return {
        "pipeline_name": "sentinel_pipeline",
        "data_url": "",
        "project": "ids-drr",
        "transformers_list": tasks,
        **changes,
    }


def manifest(*offers: TaskOffer | str, **changes: Any) -> Manifest:
    """Return the announcement of a serving worker with one free slot."""
    fields: dict[str, Any] = {
        "worker": "columns@node-3:4711:9f2c41",
        "at": NOW,
        "host": "node-3",
        "pid": 4711,
        "version": "0.1.0",
        "slots": 1,
        "free_slots": 1,
        "state": "serving",
        "store": "",
        "tasks": tuple(offer if isinstance(offer, TaskOffer) else an_offer(offer) for offer in offers),
    }
    return Manifest(**{**fields, **changes})


def an_offer(name: str, schema: dict[str, Any] | None = None, **changes: Any) -> TaskOffer:
    return TaskOffer(**{"name": name, "description": "", "context_schema": schema or {}, **changes})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def browser(**options: Any) -> Client:
    """Return a caller over HTTP; what goes wrong on the server comes back as a 500."""
    return Client(raise_request_exception=False, SERVER_NAME="localhost", **options)


@pytest.fixture
def token(asha: User) -> str:
    return services.create_token(asha, name="test")


@pytest.fixture
def api(token: str) -> "Api":
    return Api(token)


class Api:
    """A caller with a token."""

    def __init__(self, token: str) -> None:
        self._client = browser(headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(f"/api/v1{path}", query)

    def post(self, body: bytes | dict[str, Any], *, content_type: str = "application/json", **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic("POST", "/api/v1/runs", content, content_type=content_type, headers=headers)

    def send(self, address: str, document: Any) -> Any:
        """Post to any address of the server."""
        return self._client.generic("POST", address, json.dumps(document).encode(), "application/json")

    def act(self, path: str, body: bytes | Any = b"", **headers: str) -> Any:
        """Post to an address that changes something, such as `/runs/7/cancel`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic("POST", f"/api/v1{path}", content, "application/json", headers=headers)

    def ask(self, method: str, path: str) -> Any:
        return self._client.generic(method, path)


def faults_of(response: Any) -> dict[str, str]:
    return {fault["path"]: fault["reason"] for fault in response.json()["error"]["faults"]}
