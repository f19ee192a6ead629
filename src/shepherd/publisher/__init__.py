"""The Task Publisher. A project's flow.py takes its two calls from here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shepherd.publisher.calls import apublish_task_and_process_result, publish_task_and_process_result

__all__ = ["apublish_task_and_process_result", "publish_task_and_process_result"]


def __getattr__(name: str) -> Any:
    # Not at the top: the calls need Django's models, which can't be imported before its settings are read.
    if name in __all__:
        from shepherd.publisher import calls

        return getattr(calls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
