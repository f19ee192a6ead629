"""The list of attempts that must not be begun, as the Task Publisher keeps it."""

import threading
from typing import Final

from shepherd.broker.port import Subscription
from shepherd.wire.control import Withdrawals

_LOOK_S: Final = 0.1


class WithdrawnList:
    """What this worker was told; known only as long as nothing can have been missed. Safe from any thread."""

    def __init__(self, control: Subscription) -> None:
        """Follow `control`: whenever it is established anew, the whole list is needed again."""
        self._control = control
        self._changed = threading.Condition()
        self._tokens: frozenset[str] = frozenset()
        #: What was added since the control queue was established, and in which generation that was.
        self._added: frozenset[str] = frozenset()
        self._heard_in: int | None = None
        self._known_in: int | None = None

    @property
    def is_known(self) -> bool:
        known_in = self._known_in
        return known_in is not None and known_in == self._control.generation

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def wait_known(self, *, timeout_s: float) -> bool:
        with self._changed:
            # The generation changes without telling anybody.
            rounds = max(1, round(timeout_s / _LOOK_S))
            return self.is_known or any(self._changed.wait(_LOOK_S) and self.is_known for _ in range(rounds))

    def hear(self, told: Withdrawals, *, generation: int | None) -> None:
        """Take in a message of this generation of the control queue."""
        with self._changed:
            if generation != self._heard_in:
                self._heard_in, self._added = generation, frozenset()
            tokens = frozenset(told.tokens) | frozenset(told.lost)
            if told.is_complete:
                # One that was sent on its way before an addition may arrive after it.
                self._tokens = tokens | self._added
                self._known_in = generation
            else:
                self._added |= tokens
                self._tokens |= self._added
            self._changed.notify_all()
