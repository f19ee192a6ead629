"""Rows 1, 9, 10 and 35 with the times of production; `make chaos` runs them, `make test` their short forms.

LONG=1 adds a task of 35 minutes on a broker with its default settings, and slots that are busy for 40 minutes.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shepherd.broker import connect
from shepherd.broker.port import Message, QueueSpec, Subscription
from tests.support.broker import broker_node_running
from tests.support.faults.system import FaultSystem, fault_system
from tests.support.given_brokers import BROKERS, GIVEN, INSTALLED, BrokerUnderTest
from tests.support.waiting import wait_until

_TIMES = {"SHEPHERD_HOLD_S": "20", "SHEPHERD_LEASE_S": "60", "SHEPHERD_BEAT_S": "10", "SHEPHERD_SWEEP_S": "1"}
_LOST_S = 75.0
#: How long slots are busy; divided, so that the row can be tried in a minute.
_BUSY_S = 40 * 60 / float(os.environ.get("FAULTS_LONG_DIVIDED_BY", "1"))
#: How long the broker is away in row 10; divided, for the same reason.
_AWAY_S = 10 * 60 / float(os.environ.get("FAULTS_AWAY_DIVIDED_BY", "1"))
_is_long = pytest.mark.skipif(not os.environ.get("LONG"), reason="takes 40 minutes: LONG=1 runs it")

pytestmark = pytest.mark.timeout(0)


@contextmanager
def _real(
    folder: Path, *, workers: int = 2, slots: int = 2, broker: BrokerUnderTest | None = None
) -> Iterator[FaultSystem]:
    with fault_system(folder, workers=workers, slots=slots, environ=_TIMES, broker=broker) as ours:
        yield ours


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with _real(tmp_path_factory.mktemp("real")) as ours:
        yield ours


def test_a_task_of_40_seconds_whose_worker_was_killed_is_lost_within_75(faulty: FaultSystem, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = faulty.post(("gated", {"gate": str(gate)}))
    (first,) = faulty.wait_executed(run)
    wait_until(lambda: time.time() - first.at > 40, timeout_s=60, what="a task 40 s old")
    faulty.wait_claimed(run)

    killed = faulty.worker_of(first)
    faulty.kill(killed)
    began = time.monotonic()
    faulty.wait_attempt(run, "lost", timeout_s=_LOST_S)

    took_s = time.monotonic() - began
    gate.touch()
    faulty.wait_status(run, "succeeded")
    assert len(faulty.executions(run)) == 2
    faulty.restart(killed)
    faulty.conclude("1 real", "worker killed -9, task 40 s old", more=f"lost after {took_s:.0f} s")


def test_300_runs_live_through_20_seconds_without_a_broker_that_was_killed(faulty: FaultSystem) -> None:
    lost = faulty.lost_attempts()
    before = len(faulty.ledger.executions())
    runs = [faulty.post(("step", {"n": n, "seconds": 0.2})) for n in range(300)]
    faulty.wait_executed(runs[10])

    with faulty.injected.lasting("broker killed -9"):
        with _supervisors_stopped(faulty):
            # They ack nothing between the count and the kill.
            unacked = faulty.unacked("step")
            faulty.kill("rabbitmq")
        away_since = time.monotonic()
        wait_until(lambda: time.monotonic() - away_since > 20, timeout_s=30, what="20 s without a broker")
        faulty.system.start("rabbitmq")
        faulty.wait_broker()

    faulty.rest(timeout_s=300)
    executions = len(faulty.ledger.executions()) - before
    more = f"300 runs, {executions} executions, {unacked} unacked at the kill, {faulty.lost_attempts() - lost} lost"
    found = faulty.conclude("9 real", "broker killed -9 for 20 s", more=more)
    assert found.runs["failed"] == 0
    assert faulty.lost_attempts() == lost
    assert executions <= 300 + unacked


@pytest.mark.parametrize("how", ["gracefully", "killed -9"])
def test_500_runs_live_through_a_restart_of_the_broker(faulty: FaultSystem, how: str, tmp_path: Path) -> None:
    lost = faulty.lost_attempts()
    before = len(faulty.ledger.executions())
    gate = tmp_path / "gate"
    # They keep all slots busy, until all are posted.
    runs = [faulty.post(("gated", {"gate": str(gate)})) for _ in range(4)]
    faulty.wait_executing(before + 4)
    runs += [faulty.post(("step", {"n": n, "seconds": 0.2})) for n in range(496)]
    gate.touch()
    faulty.wait_executed(runs[4])

    with faulty.injected.lasting(f"broker restarted {how}"):
        if how == "gracefully":
            faulty.system.stop("rabbitmq")
        else:
            faulty.system.kill("rabbitmq")
        live = faulty.unended()
        faulty.system.start("rabbitmq")
        faulty.wait_broker()

    faulty.rest(timeout_s=600)
    executions = len(faulty.ledger.executions()) - before
    found = faulty.conclude("9 real", f"broker restarted {how}", more=f"{live} of 500 live, {executions} executions")
    assert live > 450
    assert found.runs["failed"] == 0
    assert faulty.lost_attempts() == lost
    # What the slots had in hand, and no more.
    assert executions <= 500 + 4


def test_a_result_arrives_from_the_spool_after_ten_minutes_without_a_broker(
    faulty: FaultSystem, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = faulty.post(("gated", {"gate": str(gate)}), ("step", {"n": 10}))
    (execution,) = faulty.wait_executed(run)
    faulty.wait_claimed(run)

    with faulty.injected.lasting("broker away", may_repeat=False):
        faulty.system.stop("rabbitmq")
        away_since = time.monotonic()
        gate.touch()
        faulty.wait_ended_execution(execution)
        wait_until(
            lambda: time.monotonic() - away_since > _AWAY_S, timeout_s=_AWAY_S + 30, what="ten minutes without a broker"
        )
        assert faulty.attempts(run) == ["running"]
        away_s = time.monotonic() - away_since
        faulty.system.start("rabbitmq")
        faulty.wait_broker()

    faulty.wait_status(run, "succeeded", timeout_s=120)
    assert faulty.attempts(run) == ["succeeded"]
    assert len(faulty.executions(run)) == 1
    faulty.conclude("10 real", "broker away while a claimed task ends", more=f"away for {away_s / 60:.1f} min")


@contextmanager
def _allowing_60_s(name: str) -> Iterator[BrokerUnderTest]:
    """Give a broker of the name that closes a channel on which a delivery stays unacked for a minute."""
    if name == INSTALLED:
        # A policy's word counts from 3.12 on only.
        with broker_node_running(config={"consumer_timeout": "60000"}) as node:
            yield node
    else:
        with GIVEN[name].virtual_host() as host:
            # One policy counts for a queue: the one with the greatest priority.
            host.ctl("set_policy", "--priority", "9", "impatient", ".*", '{"consumer-timeout": 60000}')
            yield host


@pytest.mark.parametrize("which", BROKERS)
def test_a_task_of_200_seconds_is_executed_once_where_the_broker_allows_60(tmp_path: Path, which: str) -> None:
    with _allowing_60_s(which) as broker, _real(tmp_path, broker=broker) as ours, _holding(broker) as (held, version):
        ours.injected.note("consumer_timeout 60 s", may_repeat=False)
        run = ours.post(("step", {"n": 35, "seconds": 200}))

        ours.wait_status(run, "succeeded", timeout_s=300)

        # Without this the broker would allow more than it was told to.
        assert [delivery.is_redelivered for delivery in held.take(at_most=1, wait_s=1)] == [True]
        assert len(ours.executions(run)) == 1
        ours.conclude("35 real", f"a task of 200 s, consumer_timeout 60 s, on RabbitMQ {version}", more="1 execution")


@contextmanager
def _holding(broker: BrokerUnderTest) -> Iterator[tuple[Subscription, str]]:
    """Hold a delivery that is never acked; it comes again when the broker has closed its channel."""
    queue = QueueSpec(name="held-for-too-long", arguments={"x-queue-type": "quorum"})
    client = connect(broker.url, name="test")
    try:
        client.declare(queues=[queue])
        assert client.publish([Message(routing_key=queue.name, body=b"{}")]) == [None]
        held = client.subscribe(queue.name, prefetch=1)
        (first,) = wait_until(lambda: held.take(at_most=1, wait_s=1), timeout_s=30, what="a delivery")
        assert not first.is_redelivered
        yield held, client.server_info(timeout_s=30).version
    finally:
        client.close()


@_is_long
def test_a_task_of_35_minutes_is_executed_once_on_a_broker_with_default_settings(tmp_path: Path) -> None:
    with _real(tmp_path) as ours:
        ours.broker.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        for worker in ("worker-1", "worker-2"):
            ours.system.stop(worker)
            ours.system.start(worker)
        ours.injected.note("consumer_timeout 30 min", may_repeat=False)
        run = ours.post(("step", {"n": 35, "seconds": 35 * 60}))

        ours.wait_status(run, "succeeded", timeout_s=40 * 60)

        assert len(ours.executions(run)) == 1
        ours.conclude("35 long", "a task of 35 min, consumer_timeout 30 min", more="1 execution")


@_is_long
def test_what_waits_for_busy_slots_is_neither_refused_nor_delivered_twice(tmp_path: Path) -> None:
    with _real(tmp_path, workers=1) as ours:
        ours.broker.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        ours.system.stop("worker-1")
        ours.system.start("worker-1")
        ours.injected.note("slots busy", may_repeat=False)
        busy = [ours.post(("step", {"n": n, "seconds": _BUSY_S})) for n in range(2)]
        ours.wait_executing(2)
        waiting = [ours.post(("step", {"n": n, "seconds": 1})) for n in range(200)]

        wait_until(lambda: ours.queued().get("shepherd.task.step", 0) >= 200, timeout_s=60, what="200 that wait")
        ours.wait_status(busy[0], "succeeded", timeout_s=_BUSY_S + 300)
        ours.start_worker("worker-2")
        for run in waiting:
            ours.wait_status(run, "succeeded", timeout_s=600)

        shares = Counter(execution.worker for execution in ours.ledger.executions())
        # A delivery that had been refused, or given back, would have been executed by the other worker as well.
        assert shares.total() == 202
        assert min(shares.values()) > 202 // 4
        assert "406" not in ours.system.log("worker-1")
        assert _redelivered(ours) == 0
        ours.conclude("44 long", f"all slots busy for {_BUSY_S / 60:.0f} min, 200 waiting", more=f"shares {shares}")


def _redelivered(ours: FaultSystem) -> int:
    """Return how many deliveries the broker counts as repeated, since it was started."""
    counted = "rabbit_global_counters:overview()"
    found = ours.broker.ctl(
        "eval", f"lists:sum([maps:get(messages_redelivered_total, C, 0) || C <- maps:values({counted})])."
    )
    return int(found)


@contextmanager
def _supervisors_stopped(ours: FaultSystem) -> Iterator[None]:
    """Have both workers stand still, but for what their children execute."""
    supervisors = [psutil.Process(ours.system.pid(name)) for name in ("worker-1", "worker-2")]
    for supervisor in supervisors:
        supervisor.suspend()
    try:
        yield
    finally:
        for supervisor in supervisors:
            supervisor.resume()
