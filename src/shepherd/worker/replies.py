"""How an attempt's last word leaves the worker: what is lost with it, and what isn't."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from shepherd.broker.port import Message
from shepherd.broker.topology import REPLIES
from shepherd.wire.fields import parse_kind
from shepherd.worker.attempt import Attempt, Hands
from shepherd.worker.outbox import Outbox
from shepherd.worker.spool import Kept, Spool

logger = logging.getLogger(__name__)


class Replies:
    """Sends replies, by way of the spool where nothing else would keep them. Safe from any thread."""

    def __init__(self, outbox: Outbox, spool: Spool, hands: Hands) -> None:
        self._outbox = outbox
        self._spool = spool
        self._hands = hands

    @property
    def trouble(self) -> str:
        """Why no reply could be kept now, so that no work must be taken; empty when all is well."""
        return self._spool.trouble

    def look_after(self) -> None:
        """Open the spool if that wasn't possible before, send what lies there, and find out whether it takes more."""
        for kept in self._spool.open():
            logger.info("reply.found", extra={"token": kept.token})
            self._hands.keep_reply(kept.token)
            self._send_kept([], kept)
        self._spool.probe()

    def give(
        self,
        attempt: Attempt,
        messages: Sequence[Message],
        *,
        ack: Callable[[], None],
        on_waiting: Callable[[], None],
    ) -> None:
        """Send the messages, the last of which is the reply, and have the delivery acked behind it.

        It isn't acked when the worker ends before the reply could be sent. `ack` is called by whatever thread sends,
        and perhaps again; it must neither wait nor raise. This returns when the broker has confirmed the reply or, if
        the attempt is claimed, when the reply is on disk; then the attempt stays in hand until the confirm.
        `on_waiting` is called if the broker doesn't confirm at once.
        """
        if not (attempt.is_claimed and self._give_from_disk(attempt, messages, ack)):
            self._deliver(attempt, messages, ack, on_waiting)

    def give_again(self, attempt: Attempt, reply: Message, *, ack: Callable[[], None]) -> None:
        """Send a reply that was sent and isn't confirmed, without waiting for its confirm.

        From the disk or, where that takes nothing, as long as this worker lives. The attempt stays in hand until then.
        """
        if self._give_from_disk(attempt, [reply], ack):
            return

        # In hand as an attempt, not as a kept reply: another delivery of it is claimed before it is acked.
        def confirmed() -> None:
            ack()
            self._hands.let_go(attempt)

        self._outbox.post([reply], on_confirmed=confirmed)

    def _give_from_disk(self, attempt: Attempt, messages: Sequence[Message], ack: Callable[[], None]) -> bool:
        """Write the reply to the disk, and send it from there; False, and nothing was done, if that takes nothing."""
        kept = self._spool.put(attempt.token, messages[-1].body)
        if kept is None:
            return False
        self._hands.keep_reply(attempt.token)
        self._send_kept(messages[:-1], kept)
        ack()
        return True

    def _deliver(
        self,
        attempt: Attempt,
        messages: Sequence[Message],
        ack: Callable[[], None],
        on_waiting: Callable[[], None],
    ) -> None:
        reply, kept = messages[-1], list[Kept | None]()

        def keep() -> None:
            if attempt.token and reply.routing_key == REPLIES and not attempt.is_claimed:
                kept.append(self._spool.put(attempt.token, reply.body))
            on_waiting()

        # A young attempt is acked on the connection of its reply, after it: the broker that knows of the one has the
        # other. Only one that dies or refuses at this moment, together with this worker's death, can lose it; then it
        # is executed again. Worth the disk's time only when the reply has to wait.
        if self._outbox.deliver(messages, on_sent=ack, on_waiting=keep):
            ack()
            for entry in filter(None, kept):
                self._spool.remove(entry)
        elif not any(kept):
            logger.error("reply.lost", extra={"token": attempt.token, "so": "the attempt is executed again"})

    def _send_kept(self, before: Sequence[Message], kept: Kept) -> None:
        message = Message(routing_key=REPLIES, body=kept.body, type=parse_kind(kept.body))
        self._outbox.post([*before, message], on_confirmed=partial(self._confirmed, kept))

    def _confirmed(self, kept: Kept) -> None:
        self._spool.remove(kept)
        self._hands.drop(kept.token)
