"""The task that this process executes now: a process executes one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shepherd.errors import NotFoundError
from shepherd.wire.envelope import TaskEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentTask:
    """What a task's code may know about itself."""

    #: The task's UUID, the same for all its attempts: an idempotency key for its side effects.
    id: str
    #: Counts from 1; a later attempt has a larger number: a fencing token for its side effects.
    attempt: int
    name: str
    order_no: int
    #: A UUID.
    run_id: str
    #: The number under which people know the run.
    run_number: int
    pipeline_name: str
    project: str
    #: Whether the run is only tried out, on the first rows of its data: a reason to publish or mail nothing.
    is_sample: bool = False

    @classmethod
    def of(cls, envelope: TaskEnvelope) -> "CurrentTask":
        return cls(
            id=envelope.task_id,
            attempt=envelope.attempt,
            name=envelope.name,
            order_no=envelope.order_no,
            run_id=envelope.run_id,
            run_number=envelope.run_number,
            pipeline_name=envelope.pipeline_name,
            project=envelope.project,
            is_sample=envelope.sample_rows is not None,
        )


#: Not a context variable: a thread that the task starts asks too.
_running: CurrentTask | None = None


def current_task() -> CurrentTask:
    """Return the task that is being executed, in whichever of its threads this is called.

    Raises:
        NotFoundError: This isn't called from a task's code.
    """
    if _running is None:
        raise NotFoundError("no task is being executed in this process")
    return _running


@contextmanager
def executing(envelope: TaskEnvelope) -> Iterator[None]:
    global _running  # noqa: PLW0603  # the process's own state, set and cleared here only
    _running = CurrentTask.of(envelope)
    try:
        yield
    finally:
        _running = None
