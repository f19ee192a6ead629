"""Several RabbitMQ nodes of the tests' own in one cluster."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shepherd.site.local.broker_node import BrokerNode
from shepherd.site.local.place import Place
from tests.support.folders import TEST_FOLDER
from tests.support.network import Machine
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until

#: As `deploy/rabbitmq/rabbitmq.conf` has it; and clients are on other machines.
_IN_A_CLUSTER = {
    "cluster_partition_handling": "pause_minority",
    "loopback_users.guest": "false",
    # Seconds after which a silent node is given up, 60 by default: so that a test needn't wait for that.
    "net_ticktime": "20",
}


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
        _form(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        epmd.kill()
        epmd.wait()


@contextmanager
def cluster_on(machines: Sequence[Machine]) -> Iterator[list[BrokerNode]]:
    """Give running nodes of one cluster, each on a machine of its own; end them all."""
    TEST_FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=TEST_FOLDER))
    hosts = {machine.name: machine.address for machine in machines}
    nodes = [
        BrokerNode(
            _with_cookie(folder / machine.name),
            port=5672,
            dist_port=25672,
            epmd_port=4369,
            config=_IN_A_CLUSTER,
            place=Place(address=machine.address, host=machine.name, hosts=hosts, enter=machine.enter),
        )
        for machine in machines
    ]
    try:
        _form(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def _form(nodes: Sequence[BrokerNode]) -> None:
    for node in nodes:
        # One after the other: a kill at a parent thread's end would take a node that the thread has started.
        node.start()
    for node in nodes[1:]:
        join(node, nodes[0])


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
