"""What was executed, as the tasks themselves noted it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One beginning of one task's code."""

    #: Seconds since 1970, by the clock of the process that executed it.
    at: float
    #: The task's UUID.
    task: str
    attempt: int
    name: str
    #: Process ids of the worker's supervisor and of the child.
    worker: int
    pid: int
    context: Any
    data: Any


class Ledger:
    """A file that outlives every process that writes to it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()

    def executions(self) -> list[Execution]:
        """Return all beginnings, in the order in which they were written."""
        lines = [line for line in self._lines() if line.pop("event") == "begin"]
        return [Execution(**line) for line in lines]

    def of(self, task_id: str) -> list[Execution]:
        return [execution for execution in self.executions() if execution.task == task_id]

    def ended(self) -> set[tuple[str, int]]:
        """Return the tasks and attempts of which the code came to its end."""
        return {(line["task"], line["attempt"]) for line in self._lines() if line["event"] == "end"}

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_bytes().splitlines()]
