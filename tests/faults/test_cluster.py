"""Rows 11, 12 and 13 on three nodes of RabbitMQ, with the times of production.

Each node, the Task Publisher and both workers have a machine of their own; the web process and the tests are at the
switch between them. Who asks for a broker has the addresses of all nodes.
"""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shepherd.broker.topology import REPLIES
from shepherd.site.local.broker_node import BrokerNode
from tests.support.cluster import cluster_on
from tests.support.faults.checker import Findings
from tests.support.faults.system import FaultSystem, fault_system
from tests.support.network import Network, network_of, why_not
from tests.support.waiting import wait_until

_TIMES = {"SHEPHERD_HOLD_S": "20", "SHEPHERD_LEASE_S": "60", "SHEPHERD_BEAT_S": "10", "SHEPHERD_SWEEP_S": "1"}
_NODES = ("node-1", "node-2", "node-3")
_CLIENTS = ("task-publisher", "worker-1", "worker-2")
#: Row 11: the longest time without anything recorded.
_STALLED_S = 30.0
_REST_S = 240.0

pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(bool(why_not()), reason=why_not())]


@dataclass(frozen=True, slots=True)
class Cluster:
    network: Network
    nodes: Sequence[BrokerNode]

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def ctl(self, *arguments: str) -> str:
        """Ask a node that is up; one that was cut off comes back a while later, and may stop once more to do so."""

        def told() -> list[str]:
            for node in self.nodes:
                with suppress(subprocess.CalledProcessError):
                    return [node.ctl(*arguments)]
            return []

        return wait_until(told, timeout_s=120, what="a node that is up")[0]

    def index_of_leader(self, queue: str) -> int:
        names = [node.name for node in self.nodes]

        def leaders() -> list[str]:
            # None in the moments in which one is elected.
            told = self.ctl("list_queues", "name", "leader", "--no-table-headers")
            found = dict(line.split("\t") for line in told.splitlines())
            return [found[queue]] if found.get(queue) in names else []

        return names.index(wait_until(leaders, timeout_s=60, what=f"a leader of {queue}")[0])

    @contextmanager
    def without(self, *indices: int) -> Iterator[None]:
        """Kill these nodes, and start them again at the end."""
        for index in indices:
            self.nodes[index].kill()
        try:
            yield
        finally:
            for index in indices:
                self.nodes[index].start()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with network_of(*_NODES, *_CLIENTS) as network, cluster_on([network.machines[name] for name in _NODES]) as nodes:
        yield Cluster(network, nodes)


@pytest.fixture(scope="module")
def shared_system(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(
        tmp_path_factory.mktemp("cluster"),
        workers=2,
        environ=_TIMES,
        broker=cluster,
        places={name: cluster.network.machines[name].enter for name in _CLIENTS},
    ) as ours:
        yield ours


@dataclass(slots=True)
class Load:
    """Runs of two tasks while something happens, and what became of all runs by then."""

    faulty: FaultSystem
    lost_before: int
    began_at: float = 0.0

    def add(self, count: int) -> list[dict[str, Any]]:
        steps = [("step", {"n": n, "seconds": 0.4}) for n in range(2)]
        return [self.faulty.post(*steps) for _ in range(count)]

    def begin(self, count: int) -> None:
        """Return when some of them are being executed."""
        runs = self.add(count)
        self.faulty.wait_executed(runs[min(4, count - 1)])
        self.began_at = time.time()

    def stalled_s(self) -> float:
        """Return the longest time since the beginning in which no task's end was recorded."""
        ends = [task["finished_at"] for task in self.faulty.records().tasks.values() if task["finished_at"]]
        times = [self.began_at, *sorted(end for end in ends if end > self.began_at)]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)

    def conclude(self, row: str, fault: str, *, more: str = "") -> Findings:
        self.faulty.rest(timeout_s=_REST_S)
        lost = self.faulty.lost_attempts() - self.lost_before
        said = f"{more}{', ' if more else ''}stalled {self.stalled_s():.1f} s, {lost} attempts lost"
        found = self.faulty.conclude(row, fault, more=said)
        assert set(found.runs) == {"succeeded"}
        assert not self.faulty.records().dead
        assert lost == 0
        return found


@pytest.fixture
def load(faulty: FaultSystem) -> Load:
    return Load(faulty, faulty.lost_attempts())


@pytest.mark.parametrize("role", ["a follower", "the leader"])
def test_runs_succeed_although_a_node_is_killed(cluster: Cluster, load: Load, role: str) -> None:
    leader = cluster.index_of_leader(REPLIES)
    load.begin(80)

    with load.faulty.injected.lasting(f"node killed, {role}"):
        with cluster.without(leader if role == "the leader" else (leader + 1) % 3):
            wait_until(lambda: load.faulty.unended() == 0, timeout_s=_REST_S, what="all runs succeeded without it")
        stalled_s = load.stalled_s()

    load.conclude("11", f"one of 3 nodes killed -9, {role} of the replies")
    assert stalled_s < _STALLED_S


def test_runs_succeed_while_all_nodes_are_restarted_in_turn_three_times(cluster: Cluster, load: Load) -> None:
    load.begin(20)

    with load.faulty.injected.lasting("rolling restart"):
        for _ in range(3):
            for node in cluster.nodes:
                node.stop()
                load.add(10)
                node.start()
                load.add(10)
        wait_until(lambda: load.faulty.unended() == 0, timeout_s=_REST_S, what="all runs succeeded")
        stalled_s = load.stalled_s()

    load.conclude("11", "rolling restart of 3 nodes, three times")
    assert stalled_s < _STALLED_S


def test_with_two_of_three_nodes_away_all_stands_still_and_goes_on_by_itself(cluster: Cluster, load: Load) -> None:
    load.begin(40)

    with load.faulty.injected.lasting("two of 3 nodes killed"), cluster.without(1, 2):
        wait_until(lambda: not cluster.nodes[0].answers(), timeout_s=60, what="the node that is left pauses")
        # What had been heard by then is still being recorded.
        _let_pass(5.0)
        before = _recorded(load.faulty)
        load.add(5)
        _let_pass(15.0)
        assert _recorded(load.faulty) == before

    load.conclude("12", "two of 3 nodes killed -9 for 20 s")


Cut = Callable[[Cluster], AbstractContextManager[None]]


def _unplugged(name: str) -> Cut:
    return lambda cluster: cluster.network.unplugged(name)


def _leader_unplugged(cluster: Cluster) -> AbstractContextManager[None]:
    return cluster.network.unplugged(_NODES[cluster.index_of_leader(REPLIES)])


def _leader_cut_off(cluster: Cluster) -> AbstractContextManager[None]:
    leader = _NODES[cluster.index_of_leader(REPLIES)]
    return cluster.network.parted(leader, *(name for name in _NODES if name != leader))


_CUTS = [
    pytest.param(_unplugged("task-publisher"), 30.0, id="Task Publisher and cluster"),
    pytest.param(_unplugged("worker-1"), 30.0, id="worker and cluster"),
    # Past the time after which nodes give each other up.
    pytest.param(_leader_cut_off, 60.0, id="leading node and both others"),
    pytest.param(_leader_unplugged, 60.0, id="leading node and all"),
]


@pytest.mark.parametrize(("cut", "seconds"), _CUTS)
def test_runs_succeed_although_a_link_was_cut(
    cluster: Cluster, load: Load, cut: Cut, seconds: float, request: pytest.FixtureRequest
) -> None:
    load.begin(60)

    with load.faulty.injected.lasting("link cut"), cut(cluster):
        _let_pass(seconds)

    load.conclude("13", f"link cut for {seconds:.0f} s, {_id_of(request)}")


@pytest.mark.parametrize(("cut", "seconds"), _CUTS)
def test_runs_succeed_although_a_link_flaps(
    cluster: Cluster, load: Load, cut: Cut, seconds: float, request: pytest.FixtureRequest
) -> None:
    load.begin(60)

    with load.faulty.injected.lasting("link flapping"):
        for _ in range(int(seconds / 10)):
            with cut(cluster):
                _let_pass(5.0)
            load.add(4)
            _let_pass(5.0)

    load.conclude("13", f"link flapping every 5 s for {seconds:.0f} s, {_id_of(request)}")


def test_a_node_is_killed_and_then_the_worker_cut_off_for_45_s(cluster: Cluster, load: Load, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    claimed = load.faulty.post(("gated", {"gate": str(gate)}), ("step", {"n": 13}))
    (execution,) = load.faulty.wait_executed(claimed)
    load.faulty.wait_claimed(claimed)
    worker = load.faulty.worker_of(execution)
    load.begin(60)

    with load.faulty.injected.lasting("node killed"), cluster.without(cluster.index_of_leader(REPLIES)):
        load.add(20)
        with load.faulty.injected.lasting("worker cut off"), cluster.network.unplugged(worker):
            gate.touch()
            _let_pass(45.0)
        wait_until(lambda: load.faulty.unended() == 0, timeout_s=_REST_S, what="all runs succeeded without the node")

    load.conclude("11+13", "a node killed -9, then the worker's link cut for 45 s", more="one task claimed there")
    assert len(load.faulty.executions(claimed)) == 1


def _recorded(faulty: FaultSystem) -> int:
    return sum(task["status"] == "succeeded" for task in faulty.records().tasks.values())


def _let_pass(seconds: float) -> None:
    """Let time pass in which a fault lasts."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, timeout_s=seconds + 5, what="time passed")


def _id_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.id)
