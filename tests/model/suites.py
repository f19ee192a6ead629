"""What is explored when: a part in each run of the tests, more when there is time."""

from typing import Final

from tests.model.bounds import Bounds

#: Each of them may happen.
FAULTS: Final = dict.fromkeys(("publisher", "worker", "duplicate", "drop", "stall", "silence"), 1)
_FAULTS_TWICE: Final = dict.fromkeys(FAULTS, 2)

#: The Task Publisher that owns a run is paused and another one takes it over, twice.
LED: Final = Bounds(faults=2, most={"publisher": 1, "takeover": 2}, is_led=True, claims=False)

QUICK: Final = {
    "two tasks, no fault": Bounds(faults=0, says_started=True),
    "two short tasks, one fault": Bounds(faults=1, most=FAULTS, claims=False),
    "two short tasks that fail twice": Bounds(faults=0, most={"fail": 2}, claims=False),
    "two short tasks, cancelled and resumed": Bounds(faults=0, most={"cancel": 1, "resume": 1}, claims=False),
    "two short tasks that a publisher leads, taken over": LED,
    "one task, one fault": Bounds(faults=1, most=FAULTS, tasks=1),
    "one short task, one fault, cancelled": Bounds(faults=1, most={**FAULTS, "cancel": 1}, tasks=1, claims=False),
    "one task, cancelled, fails": Bounds(faults=0, most={"cancel": 1, "fail": 1}, tasks=1),
}

LONG: Final = {
    "two tasks, one fault": Bounds(faults=1, most=FAULTS),
    "two tasks, cancelled, fail": Bounds(faults=0, most={"cancel": 1, "fail": 1}),
    "two short tasks, two faults": Bounds(faults=2, most=_FAULTS_TWICE, claims=False),
    "one task, two faults": Bounds(faults=2, most=_FAULTS_TWICE, tasks=1),
    "one task, one fault, cancelled": Bounds(faults=1, most={**FAULTS, "cancel": 1}, tasks=1),
    "one task, cancelled, resumed, fails": Bounds(faults=0, most={"cancel": 1, "resume": 1, "fail": 1}, tasks=1),
    "one short task, one fault, cancelled, resumed": Bounds(
        faults=1, most={**FAULTS, "cancel": 1, "resume": 1}, tasks=1, claims=False
    ),
}
