"""How fast to try again, and how much to send at once."""

from collections.abc import Iterator, Sequence
from typing import Final

from shepherd.broker.port import Message

#: Messages and bytes that are written before the socket is waited for.
_CHUNK: Final = 256
_CHUNK_BYTES: Final = 1024 * 1024


def backoff(first_s: float, limit_s: float) -> Iterator[float]:
    """Yield pauses without end, each twice the one before, up to a limit."""
    pause = first_s
    while True:
        yield pause
        pause = min(pause * 2, limit_s)


def chunks(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the messages in their order, in parts that are worth one write: of one exchange, with no id twice."""
    chunk: list[Message] = []
    ids: set[str] = set()
    size = 0
    for message in messages:
        is_other = bool(chunk) and (message.exchange != chunk[0].exchange or message.message_id in ids)
        if is_other or size > _CHUNK_BYTES or len(chunk) == _CHUNK:
            yield chunk
            chunk, ids, size = [], set(), 0
        chunk.append(message)
        if message.message_id:
            ids.add(message.message_id)
        size += len(message.body)
    if chunk:
        yield chunk
