"""What a lane needs of the AMQP client."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Wire(Protocol):
    """The client's channel."""

    number: int
    #: Bytes that the broker takes in one body frame.
    largest: int

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written: RabbitMQ cuts the connection for one that comes late."""

    def write(self, data: bytes) -> None:
        """Have this written before the loop waits again, together with all else that is to be."""

    def headers_of(self, properties: bytes) -> Mapping[str, Any]:
        """Return the header table that a content header holds."""

    async def bound_queue(self, exchange: str, keys: Sequence[str]) -> str:
        """Return the name of a new queue that gets what these keys match, and lasts as long as its consumer."""

    async def close(self) -> None: ...
