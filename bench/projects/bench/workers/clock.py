"""Tasks that say when their code ran."""

import time
from typing import Any

from shepherd.worker import Worker

worker = Worker("bench-clock")


@worker.task
def bench_clock_first(context: dict[str, Any], data: Any) -> Any:
    """Say when this code began and ended."""
    began_ns = time.time_ns()
    del context, data
    return {"first_began_ns": began_ns, "first_ended_ns": time.time_ns()}


@worker.task
def bench_clock_second(context: dict[str, Any], data: Any) -> Any:
    """Add when this code began."""
    began_ns = time.time_ns()
    del context
    return {**data, "second_began_ns": began_ns}


worker.run()
