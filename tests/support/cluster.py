"""Several RabbitMQ nodes of the tests' own in one cluster."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shepherd.site.local.broker_node import BrokerNode
from tests.support.folders import TEST_FOLDER
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until


@contextmanager
def cluster_running(*, size: int = 3) -> Iterator[list[BrokerNode]]:
    """Give running nodes that form one cluster; end them all, and the name server that they share."""
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
        for node in nodes:
            # One after the other: a kill at a parent thread's end would take a node that the thread has started.
            node.start()
        for node in nodes[1:]:
            join(node, nodes[0])
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        epmd.kill()
        epmd.wait()


def _with_cookie(folder: Path) -> Path:
    folder.mkdir()
    cookie = folder / ".erlang.cookie"
    cookie.write_text("of-the-tests-cluster")
    cookie.chmod(0o400)
    return folder


def join(node: BrokerNode, first: BrokerNode) -> None:
    """Make a running node that holds nothing of value a member of another one's cluster."""
    node.ctl("stop_app")
    node.ctl("reset")

    def has_joined() -> bool:
        # The first try may find the other node's database still busy.
        try:
            node.ctl("join_cluster", first.name)
        except subprocess.CalledProcessError:
            return False
        return True

    wait_until(has_joined, timeout_s=30, what=f"{node.name} joins {first.name}")
    node.ctl("start_app")
