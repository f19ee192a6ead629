"""One move from state to state, and how much may go wrong on the way."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.model.state import ASKED, KINDS, State


class Move(NamedTuple):
    label: str
    state: State
    #: False for faults, and for what people ask for: nobody may wait for those.
    is_progress: bool = True
    #: What must not be, in a sentence; empty if all is well.
    broken: str = ""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many faults there may be in all, and how much of each kind."""

    faults: int = 1
    most: dict[str, int] = field(default_factory=dict)
    #: Of the run: one or two.
    tasks: int = 2
    #: Whether a publisher of the project publishes each task, on behalf of the Task Publisher that owns the run.
    is_led: bool = False
    #: Whether workers say `started`.
    says_started: bool = False
    #: Whether tasks may run for so long that workers claim them.
    claims: bool = True

    def allows(self, state: State, kind: str) -> bool:
        spent = state.spent[KINDS.index(kind)]
        return spent < self.most.get(kind, 0) and (kind in ASKED or state.faults < self.faults)
