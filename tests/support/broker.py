"""RabbitMQ nodes of the tests' own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from shepherd.site.local.broker_node import BrokerNode
from tests.support.folders import TEST_FOLDER
from tests.support.ports import free_port


@contextmanager
def broker_node_running(
    *, config: Mapping[str, str] | None = None, plugins: Sequence[str] = ()
) -> Iterator[BrokerNode]:
    """Give a fresh node that nobody else uses, and leave nothing of it running."""
    TEST_FOLDER.mkdir(parents=True, exist_ok=True)
    node = BrokerNode(
        Path(mkdtemp(prefix="broker-", dir=TEST_FOLDER)),
        port=free_port(),
        dist_port=free_port(),
        epmd_port=free_port(),
        config=config,
        plugins=plugins,
    )
    node.start()
    try:
        yield node
    finally:
        node.kill()


@pytest.fixture(scope="session")
def broker_node() -> Iterator[BrokerNode]:
    """A node that all tests share, which is why nobody may stop it and why each test uses names of its own."""
    with broker_node_running() as node:
        yield node


@pytest.fixture(scope="module")
def own_broker_node() -> Iterator[BrokerNode]:
    """A node that the tests of one module may stop and start."""
    with broker_node_running() as node:
        yield node
