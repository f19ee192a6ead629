"""Tasks that do nothing: what a run costs beside its tasks' own work."""

from typing import Any

from shepherd.worker import Worker

worker = Worker("bench")


@worker.task
def bench_first(context: dict[str, Any], data: Any) -> Any:
    """Hand on the context."""
    del data
    return context


@worker.task
def bench_second(context: dict[str, Any], data: Any) -> Any:
    """Hand on what the first task returned."""
    del context
    return data


worker.run()
