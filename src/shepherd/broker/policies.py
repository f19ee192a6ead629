"""What an operator may tune on the broker without new queues. Policies can be changed at any time, arguments can't."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """A policy as operators set it on Shepherd's virtual host."""

    name: str
    #: A regular expression over names of queues.
    pattern: str
    definition: Mapping[str, Any]


#: RabbitMQ's documents ask for a bound wherever dead letters are kept at least once: without an answer from
#: `shepherd.dead`, a queue keeps what it has given up. A full queue refuses what is published, which then waits in the
#: database.
TASKS_POLICY: Final = PolicySpec(
    name="shepherd-tasks", pattern=r"^shepherd\.task\.", definition={"max-length-bytes": 1024 * 1024 * 1024}
)

RECOMMENDED: Final = (TASKS_POLICY,)
