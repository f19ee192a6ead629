"""Visits every state that can be reached, once, the nearest first; so the first thing found has the shortest way."""

from collections import deque
from dataclasses import dataclass, field

from tests.model.state import State
from tests.model.system import System


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something that must not be, and the shortest way to it."""

    what: str
    way: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2} {label}" for number, label in enumerate(self.way, start=1))
        return f"{self.what}\n{steps}"


@dataclass(kw_only=True)
class Explored:
    """All states that there are, and how each came about."""

    states: list[State] = field(default_factory=list)
    #: The state before, and what happened; the first state has itself.
    origins: list[tuple[int, str]] = field(default_factory=list)
    moves: int = 0
    found: Found | None = None
    #: For each state, those that lead to it without a fault.
    before: list[list[int]] = field(default_factory=list)

    def way(self, number: int) -> tuple[str, ...]:
        labels: list[str] = []
        while number:
            number, label = self.origins[number]
            labels.append(label)
        return tuple(reversed(labels))


def explore(system: System, first: State) -> Explored:
    """Visit all states, until one is broken. Then see whether each can come to rest without any further fault."""
    explored = Explored()
    numbers: dict[State, int] = {}
    ahead: deque[int] = deque()

    def enter(state: State, origin: int, label: str) -> int:
        if state not in numbers:
            numbers[state] = len(explored.states)
            explored.states.append(state)
            explored.origins.append((origin, label))
            explored.before.append([])
            ahead.append(numbers[state])
        return numbers[state]

    enter(first.canonical(), 0, "")
    while ahead:
        number = ahead.popleft()
        for move in system.moves(explored.states[number]):
            explored.moves += 1
            if move.broken:
                explored.found = Found(what=move.broken, way=(*explored.way(number), move.label))
                return explored
            after = enter(move.state.canonical(), number, move.label)
            if move.is_progress:
                explored.before[after].append(number)
    explored.found = _stuck(explored, system)
    return explored


def _stuck(explored: Explored, system: System) -> Found | None:
    """Return the nearest state at rest that is wrong, or that can't come to rest by itself.

    From all others a fair scheduler gets there.
    """
    ahead = [number for number, state in enumerate(explored.states) if system.is_at_rest(state)]
    for number in ahead:
        if what := system.rest_fault(explored.states[number]):
            return Found(what=what, way=explored.way(number))
    live = set(ahead)
    while ahead:
        new = [before for before in explored.before[ahead.pop()] if before not in live]
        live.update(new)
        ahead += new
    stuck = next((number for number in range(len(explored.states)) if number not in live), None)
    if stuck is None:
        return None
    return Found(
        what=f"nothing leads from here to the run's end: {system.shown(explored.states[stuck])}",
        way=explored.way(stuck),
    )
