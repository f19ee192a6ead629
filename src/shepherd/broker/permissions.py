"""What each program needs to be allowed on the broker, as regular expressions over names, and nothing beyond."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What RabbitMQ's `set_permissions` takes."""

    configure: str
    write: str
    read: str


#: The queue of one's own by which one listens to `shepherd.control`; the broker names it.
_OWN: Final = r"amq\.gen-.*"

#: Declares everything under `shepherd.`, publishes tasks, takes replies, beats, logs and dead letters.
TASK_PUBLISHER: Final = Permissions(
    configure=rf"^(shepherd\..*|{_OWN})$",
    write=rf"^(amq\.default|shepherd\..*|{_OWN})$",
    read=rf"^(shepherd\..*|{_OWN})$",
)
#: Declares nothing but its own queue. `amq.default` is the default exchange, over which replies, beats and logs go: it
#: reaches every queue by name, and RabbitMQ has no finer permission for it.
WORKER: Final = Permissions(
    configure=rf"^{_OWN}$",
    write=rf"^(amq\.default|shepherd\.dead|{_OWN})$",
    read=rf"^(shepherd\.task\..*|shepherd\.control|{_OWN})$",
)
#: Wakes the Task Publisher.
WEB: Final = Permissions(configure="^$", write=r"^shepherd\.control$", read="^$")
