"""The two calls that a publisher makes. The seed prints them, so their names and their pair of answers are fixed."""

from collections.abc import Mapping
from typing import Any

from shepherd.domain.status import TaskStatus
from shepherd.publisher.handle import Handle
from shepherd.publisher.outcomes import Outcome
from shepherd.publisher.session import TaskObject


async def apublish_task_and_process_result(
    task_obj: TaskObject, context: Mapping[str, Any] | None, data: Any = None
) -> tuple[Any, bool]:
    """Publish a task with this context and this data, and wait for its end; for an `async def` publisher.

    A task is published once: a second call, or one after a crash, waits for the first one's result. Returns
    what the worker returned and False, or the error's text and True. A JSON value comes as itself, anything else as a
    handle with `.uri` and `.load(as_=…)`.

    Raises:
        TaskFailedError: The data can't travel; the text says what can.
    """
    return _pair(task_obj, await task_obj.publish(context, data))


def publish_task_and_process_result(
    task_obj: TaskObject, context: Mapping[str, Any] | None, data: Any = None
) -> tuple[Any, bool]:
    """Do the same for a `def` publisher, which runs in a thread of its own."""
    return _pair(task_obj, task_obj.publish_from_thread(context, data))


def _pair(task_obj: TaskObject, outcome: Outcome) -> tuple[Any, bool]:
    if outcome.status == TaskStatus.SUCCEEDED and outcome.result is not None:
        return Handle.of(outcome.result, task_obj.store), False
    return outcome.error.message if outcome.error else f"{task_obj.name} is {outcome.status}", True
