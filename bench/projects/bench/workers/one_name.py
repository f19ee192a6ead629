"""A task that does nothing, by itself in its worker."""

from typing import Any

from shepherd.worker import Worker

worker = Worker("bench-one-name")


@worker.task
def bench_step(context: dict[str, Any], data: Any) -> Any:
    """Hand on the input, or the context where there is none."""
    return context if data is None else data


worker.run()
