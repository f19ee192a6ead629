"""A real HTTP server that speaks S3, in a process of its own, and a bucket in it."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_until

_SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
BUCKET = "shepherd-tests"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a server with one empty bucket."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    # Without the variables that are meant for clients: it is one itself where it finds them.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-c", _SERVE, str(port)]
    server = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _made(endpoint), timeout_s=60, what="a bucket")
        yield endpoint
    finally:
        server.kill()
        server.wait(20)


@pytest.fixture
def s3_settings(s3_endpoint: str) -> dict[str, str]:
    """The variables that lead to the server."""
    return {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "of-the-tests",
        "AWS_REGION": "eu-central-1",
    }


@pytest.fixture
def s3_url(s3_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store in the bucket; the variables are set for this test, and for what it starts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_settings.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def unfinished_uploads(endpoint: str) -> int:
    """Return how many multi-part uploads the bucket knows that were neither completed nor aborted."""
    with urlopen(f"{endpoint}/{BUCKET}?uploads", timeout=20) as answer:
        return int(answer.read().count(b"<Upload>"))


def _made(endpoint: str) -> bool:
    with suppress(URLError, OSError), urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=5) as answer:
        return bool(answer.status == 200)
    return False
