"""RabbitMQ nodes of the tests' own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from shepherd.site.local.broker_node import BrokerNode
from tests.support.folders import TEST_FOLDER
from tests.support.given_brokers import BROKERS, GIVEN, INSTALLED, BrokerUnderTest
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
def shared_brokers() -> Iterator[Callable[[str], BrokerUnderTest]]:
    """Return what there is under a name of `BROKERS`, from the first time on."""
    with ExitStack() as at_end:

        @cache
        def opened(name: str) -> BrokerUnderTest:
            if name == INSTALLED:
                return at_end.enter_context(broker_node_running())
            return at_end.enter_context(GIVEN[name].virtual_host())

        yield opened


@pytest.fixture(params=BROKERS)
def broker_node(request: pytest.FixtureRequest, shared_brokers: Callable[[str], BrokerUnderTest]) -> BrokerUnderTest:
    """A broker that all tests share, which is why nobody may stop it and why each test uses names of its own."""
    return shared_brokers(request.param)


@pytest.fixture(scope="module", params=BROKERS)
def own_broker(request: pytest.FixtureRequest) -> Iterator[BrokerUnderTest]:
    """A broker on which one module has the standing queues for itself; nobody may stop it."""
    if request.param == INSTALLED:
        yield request.getfixturevalue("own_broker_node")
    else:
        with GIVEN[request.param].virtual_host() as host:
            yield host


@pytest.fixture(scope="module")
def own_broker_node() -> Iterator[BrokerNode]:
    """A node that the tests of one module may stop and start."""
    with broker_node_running() as node:
        yield node
