"""Several RabbitMQ nodes of the tests' own in one cluster."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shepherd.errors import BrokerUnavailableError
from shepherd.site.local.broker_node import BrokerNode
from tests.support.folders import TEST_FOLDER
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until

_COOKIE = "of-the-tests-cluster"


@contextmanager
def cluster_running(*, size: int = 3) -> Iterator[list[BrokerNode]]:
    """Give running nodes that form one cluster, the first of which was there first; end them all, and their epmd."""
    TEST_FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=TEST_FOLDER))
    epmd_port, ports = free_port(), free_ports(2 * size)
    nodes = [
        BrokerNode(
            _with_cookie(folder / f"node-{number}"),
            port=ports + 2 * number,
            dist_port=ports + 2 * number + 1,
            epmd_port=epmd_port,
            has_own_epmd=False,
        )
        for number in range(size)
    ]
    epmd = subprocess.Popen(["setpriv", "--pdeathsig=KILL", "--", *nodes[0].epmd_command()])
    try:
        _start(nodes)
        for node in nodes[1:]:
            _join(node, nodes[0])
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        epmd.kill()
        epmd.wait()


def _with_cookie(folder: Path) -> Path:
    folder.mkdir()
    cookie = folder / ".erlang.cookie"
    cookie.write_text(_COOKIE)
    cookie.chmod(0o400)
    return folder


def _start(nodes: Sequence[BrokerNode]) -> None:
    for node in nodes:
        node.start()


def _join(node: BrokerNode, first: BrokerNode) -> None:
    node.ctl("stop_app")
    node.ctl("reset")

    def joined() -> bool:
        # The first try after a start may find the other node's database still busy.
        try:
            node.ctl("join_cluster", first.name)
        except subprocess.CalledProcessError as error:
            return "already_member" in error.stderr + error.stdout
        return True

    wait_until(joined, timeout_s=30, what=f"{node.name} joins {first.name}")
    node.ctl("start_app")


def starts(node: BrokerNode) -> bool:
    try:
        node.start()
    except BrokerUnavailableError:
        return False
    return True
