"""What is explored when: a part in each run of the tests, more when there is time."""

from typing import Final

from tests.model.bounds import Bounds

_ALL: Final = {"publisher": 2, "worker": 2, "duplicate": 2, "fail": 1, "cancel": 1}

QUICK: Final = {
    "no fault": Bounds(faults=0, says_started=True),
    "one fault of any kind": Bounds(faults=1, most=_ALL),
}

LONG: Final = {
    "one fault, with started": Bounds(faults=1, most=_ALL, says_started=True),
    "two faults of any kind": Bounds(faults=2, most=_ALL),
}
