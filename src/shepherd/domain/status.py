"""What a run, a task and an attempt may be, and what may follow what."""

from enum import StrEnum


class RunStatus(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus(StrEnum):
    PENDING = "pending"
    PUBLISHED = "published"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptStatus(StrEnum):
    PUBLISHED = "published"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    WITHDRAWN = "withdrawn"


#: A run that will not change any more by itself.
ENDED_RUN = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})
UNFINISHED_RUN = frozenset({RunStatus.ACCEPTED, RunStatus.RUNNING})
#: A task whose attempt may still be answered.
UNFINISHED_TASK = frozenset({TaskStatus.PUBLISHED, TaskStatus.RUNNING})
#: An attempt that a reply may still end.
UNFINISHED_ATTEMPT = frozenset({AttemptStatus.PUBLISHED, AttemptStatus.RUNNING})
