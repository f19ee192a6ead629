"""The check that nothing grows: what it finds, and that a system at rest gives it nothing to find."""

from dataclasses import replace

from tests.support.faults.resources import Held, Usage, grown, held, not_flat
from tests.support.faults.system import FaultSystem

MIB = 2**20
BEFORE = Held(
    processes={"web": Usage(descriptors=20, memory=60 * MIB), "worker-1": Usage(descriptors=40, memory=90 * MIB)},
    channels={"web": (2,), "worker worker-1": (7,), "task publisher": (6, 8)},
)


def test_what_is_held_as_before_is_flat() -> None:
    later = replace(BEFORE, processes={"web": Usage(descriptors=24, memory=75 * MIB)}, channels={"web": (3,)})

    assert grown(BEFORE, BEFORE) == []
    assert grown(BEFORE, later) == []


def test_what_has_grown_is_named_with_what_it_was() -> None:
    after = Held(
        processes={"web": Usage(descriptors=200, memory=60 * MIB), "worker-1": Usage(descriptors=40, memory=900 * MIB)},
        channels={"web": (2, 2), "worker worker-1": (70,), "task publisher": (6, 8)},
    )

    assert grown(BEFORE, after) == [
        "web holds 200 descriptors at rest, and held 20 before",
        "worker-1 holds 900 MiB at rest, and held 90 MiB before",
        "'web' has 2 connections to the broker, and had 1 before",
        "'worker worker-1' has 70 channels, and had 7 before",
    ]


def test_a_system_at_rest_holds_what_it_held(faulty: FaultSystem) -> None:
    faulty.wait_status(faulty.post("step"), "succeeded")
    before = held(faulty)
    for n in range(10):
        faulty.post(("step", {"n": n}))
    faulty.rest()

    assert {"web", "task-publisher", "worker-1", "worker-2"} <= before.processes.keys()
    assert {"web", "task publisher", "worker worker-1", "worker worker-2"} <= before.channels.keys()
    assert not_flat(faulty, before) == []
