"""The public API for task authors: functions become tasks, a file becomes a worker.

Importing it brings in neither a server library nor a data frame library, and starts nothing.
"""

from shepherd.errors import TaskFailedError, TransientError
from shepherd.worker.current import CurrentTask, current_task
from shepherd.worker.worker import Worker

__all__ = ["CurrentTask", "TaskFailedError", "TransientError", "Worker", "current_task"]
