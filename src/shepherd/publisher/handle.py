"""Data that lies in the store, as a publisher holds it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shepherd.store.port import Store
from shepherd.wire.value import ClaimCheck, Inline, Value


@dataclass(frozen=True, slots=True)
class Handle:
    """A claim check that a publisher may hand on, or load."""

    value: ClaimCheck
    _store: Store

    @classmethod
    def of(cls, value: Value, store: Store) -> Any:
        """Return a JSON value itself, and a handle for anything else."""
        return value.value if isinstance(value, Inline) else cls(value, store)

    @property
    def uri(self) -> str:
        return self.value.uri

    @property
    def size(self) -> int:
        """In bytes."""
        return self.value.size

    @property
    def media_type(self) -> str:
        return self.value.media_type

    def load(self, *, as_: Any = Any) -> Any:
        """Return the data as a type that a task may declare: `polars.DataFrame`, `pandas.DataFrame`, `bytes`, `str`.

        A lazy frame and a path aren't offered: they would outlive the local copy that they stand for.

        Raises:
            TaskFailedError: It can't become that.
            StoreUnavailableError: It isn't in the store, or the store doesn't answer.
            TypeError: Nothing can become that type.
        """
        # Not at the top: a tenth of the time in which a Task Publisher starts, for what few publishers do.
        from shepherd.worker.data import data_type
        from shepherd.worker.desk import Desk

        wanted = data_type(as_)
        if wanted.is_bound_to_files:
            raise TypeError(f"load(as_={wanted.label}): would outlive its local copy; load polars.DataFrame or bytes")
        with tempfile.TemporaryDirectory() as scratch, Desk(self._store, prefix="-", scratch=Path(scratch)) as desk:
            return wanted.decode(self.value, desk)
