"""Rows 13 and 14: what a bad network does to the connections of a worker and of the Task Publisher."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from tests.support.faults.system import FaultSystem
from tests.support.faults.thoroughness import is_full
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

_LIVE = 8
#: Of AMQP, as worker and Task Publisher ask for it.
_HEARTBEAT_S = 10.0


def _flap(proxy: Proxy, pass_by: Callable[[float], None]) -> None:
    for _ in range(4):
        proxy.stall()
        pass_by(1.0)
        proxy.resume()
        pass_by(0.5)


def _reset(proxy: Proxy, pass_by: Callable[[float], None]) -> None:
    for _ in range(3):
        proxy.reset()
        pass_by(0.5)


def _cut_in_frame(proxy: Proxy, pass_by: Callable[[float], None]) -> None:
    for _ in range(3):
        proxy.cut_in_frame()
        pass_by(1.0)


def _half_open(proxy: Proxy, pass_by: Callable[[float], None]) -> None:
    # Longer than two heartbeats of AMQP, after which each side gives the other up.
    proxy.stall()
    pass_by(25.0)
    proxy.resume()


def _slow(proxy: Proxy, pass_by: Callable[[float], None]) -> None:
    proxy.slow_down(delay_s=2.0 if is_full() else 0.5, bytes_per_s=10_000)
    pass_by(30.0 if is_full() else 8.0)
    proxy.slow_down()


_FAULTS = {
    "flapping": ("13", _flap),
    "reset": ("14", _reset),
    "cut in mid-frame": ("14", _cut_in_frame),
    "half open": ("14", _half_open),
    "slow": ("14", _slow),
}
_QUICK = [("worker-1", "flapping"), ("worker-1", "cut in mid-frame"), ("task-publisher", "reset"), ("worker-1", "slow")]
_ALL = [(name, how) for name in ("worker-1", "task-publisher") for how in _FAULTS]


@pytest.mark.parametrize(("name", "how"), _ALL if is_full() else _QUICK)
def test_a_bad_network_only_delays(faulty: FaultSystem, name: str, how: str) -> None:
    row, bring_about = _FAULTS[how]
    lost = faulty.lost_attempts()
    dead = len(faulty.records().dead)

    with faulty.behind_proxy(name) as proxy:
        faulty.wait_serving("worker-1", "worker-2")
        runs = [faulty.post(("step", {"seconds": 0.3}), "step") for _ in range(_LIVE)]
        with faulty.injected.lasting(f"{name} {how}"):
            bring_about(proxy, lambda seconds: _go_on_submitting(faulty, runs, seconds))
        for run in runs:
            faulty.wait_status(run, "succeeded", timeout_s=60)

    faulty.conclude(row, f"network of {name.removesuffix('-1')} {how}", more=f"{len(runs)} runs live")
    assert len(faulty.records().dead) == dead
    # A link that is out for longer than a lease may cost a lease, as one that is out for good does.
    assert how == "half open" or faulty.lost_attempts() == lost


@pytest.mark.skipif(not is_full(), reason="takes as long as three heartbeats of AMQP: make chaos tries it")
@pytest.mark.parametrize("name", ["worker-1", "task-publisher"])
def test_a_half_open_connection_is_noticed_within_3_heartbeats(faulty: FaultSystem, name: str) -> None:
    with faulty.behind_proxy(name) as proxy:
        faulty.wait_serving("worker-1", "worker-2")
        # Both are connected when this has ended; the catalogue alone would say so of what was started anew.
        faulty.wait_status(faulty.post("step"), "succeeded")
        before = faulty.system.log(name).count("broker.lost")
        with faulty.injected.lasting(f"{name} half open"):
            proxy.stall()
            began = monotonic()
            wait_until(
                lambda: faulty.system.log(name).count("broker.lost") > before,
                timeout_s=3 * _HEARTBEAT_S,
                what="a half-open connection noticed",
            )
            noticed_s = monotonic() - began
            proxy.resume()
        faulty.wait_status(faulty.post("step"), "succeeded")

    faulty.conclude("14", f"network of {name.removesuffix('-1')} half open", more=f"noticed after {noticed_s:.0f} s")


def _go_on_submitting(faulty: FaultSystem, runs: list[dict[str, Any]], seconds: float) -> None:
    """Let so much time pass, with some work in it."""
    until, count = monotonic() + seconds, len(runs)

    def is_over() -> bool:
        if len(runs) < count + 4:
            runs.append(faulty.post(("step", {"seconds": 0.2})))
        return monotonic() > until

    wait_until(is_over, timeout_s=seconds + 30, what="time passed")
