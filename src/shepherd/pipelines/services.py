"""Everything that may be written from outside the engine: the door for the API, the pages and the Task Publisher.

The engine has doors of its own: `starting`, `recording` and `unconfirmed`, which `publisher/relay.py` calls.
"""

from shepherd.pipelines.acceptance import Accepted, accept
from shepherd.pipelines.again import append_tasks, run_again
from shepherd.pipelines.catalogue import announce, beat
from shepherd.pipelines.handles import cancel, rerun, resume
from shepherd.pipelines.logbook import append_log_lines
from shepherd.pipelines.pausing import pause, unpause
from shepherd.pipelines.tokens import create_token

__all__ = [
    "Accepted",
    "accept",
    "announce",
    "append_log_lines",
    "append_tasks",
    "beat",
    "cancel",
    "create_token",
    "pause",
    "rerun",
    "resume",
    "run_again",
    "unpause",
]
