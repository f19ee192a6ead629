"""Calling publishers, and driving a run without Prefect's engine."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from shepherd.publisher.session import Pipeline, TaskObject


async def call_publisher(
    publisher: Any, context: Mapping[str, Any], pipeline: Pipeline, task_object: TaskObject
) -> None:
    """Call a publisher's function; a `def` one in a thread of its own, since on the loop it would stop all others."""
    arguments = {"context": dict(context), "pipeline": pipeline, "task_obj": task_object}
    if inspect.iscoroutinefunction(publisher.fn):
        await publisher.fn(**arguments)
    else:
        await _in_thread(lambda: publisher.fn(**arguments), name=f"publisher-{task_object.name}")


async def plain_step(task_object: TaskObject, body: Callable[[], Awaitable[Any]]) -> Any:
    """Execute a task's body as it is."""
    del task_object
    return await body()


@asynccontextmanager
async def without_slot() -> AsyncIterator[None]:
    yield


async def _in_thread(function: Callable[[], Any], *, name: str) -> None:
    # Not a pool's: a publisher may wait for days, and then it would hold one of the pool's few threads.
    done: Future[None] = Future()
    # Whoever no longer waits can't cancel what goes on all the same.
    done.set_running_or_notify_cancel()
    inside = contextvars.copy_context()

    def run() -> None:
        try:
            inside.run(function)
        except StopIteration as error:
            # Which no future takes, so that whoever waits would wait for ever.
            done.set_exception(RuntimeError(f"it raised StopIteration: {error}"))
        except BaseException as error:  # noqa: BLE001  # Handed on to whoever waits.
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    await asyncio.wrap_future(done)
