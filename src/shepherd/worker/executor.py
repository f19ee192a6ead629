"""One attempt, from its envelope to its reply, inside a child process."""

import logging
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shepherd.errors import InvalidInputError, TaskFailedError
from shepherd.store.port import Store
from shepherd.wire.envelope import Finished, TaskEnvelope, TaskError
from shepherd.wire.value import Value
from shepherd.worker import result
from shepherd.worker.card import card_of
from shepherd.worker.current import executing
from shepherd.worker.desk import Desk, desk_prefix
from shepherd.worker.failure import explain, invalid_context
from shepherd.worker.sample import cut
from shepherd.worker.task import Task
from shepherd.worker.vault import Vault

logger = logging.getLogger(__name__)


class Executor:
    """Executes attempts, one after another."""

    def __init__(
        self, tasks: Mapping[str, Task], *, store: Store, worker: str, scratch: Path, vault: Vault | None = None
    ) -> None:
        self._tasks = tasks
        self._vault = vault or Vault()
        self._store = self._vault.guarded(store)
        self._worker = worker
        self._scratch = scratch

    def execute(self, body: bytes) -> bytes:
        """Return the whole reply to a task's envelope, with `log_lines` 0 as its last field.

        Raises:
            ProtocolError: The body is no envelope, so nobody can be answered.
        """
        envelope = TaskEnvelope.parse(body)
        began = time.monotonic()
        outcome, card = self._outcome(envelope)
        reply = Finished(
            token=envelope.token,
            worker=self._worker,
            at=datetime.now(UTC),
            elapsed_s=time.monotonic() - began,
            result=None if isinstance(outcome, TaskError) else outcome,
            error=outcome if isinstance(outcome, TaskError) else None,
            card=card,
        )
        return self._vault.kept(reply).to_bytes()

    def _outcome(self, envelope: TaskEnvelope) -> tuple[Value | TaskError, dict[str, Any] | None]:
        """Resolve, parse, decode, call, encode, describe; what fails on the way decides the outcome."""
        try:
            task = self._resolved(envelope)
            context = self._context(task, envelope)
            if isinstance(context, TaskError):
                return context, None
            with self._desk(envelope) as desk, executing(envelope):
                cut(envelope.data, rows=envelope.data_rows, desk=desk)
                data = _data(task, envelope, desk)
                returned = task.function(context, *data)
                value = result.encode(returned, desk, is_by_path=task.is_by_path)
                return value, _card(value, envelope, desk)
        # The edge that translates, and the reason why the worker outlives whatever a task's code raises.
        except BaseException as error:  # noqa: BLE001
            return explain(error, mask=self._vault.mask.text), None

    def _resolved(self, envelope: TaskEnvelope) -> Task:
        task = self._tasks.get(envelope.name)
        if task is None:
            known = ", ".join(sorted(self._tasks))
            raise TaskFailedError("unknown_task", f"this worker doesn't serve {envelope.name!r}, only {known}")
        return task

    def _context(self, task: Task, envelope: TaskEnvelope) -> Any:
        try:
            return task.context.parse(self._vault.filled(envelope.context))
        except InvalidInputError as error:
            return invalid_context(error, mask=self._vault.mask.text)

    def _desk(self, envelope: TaskEnvelope) -> Desk:
        prefix = desk_prefix(
            run_id=envelope.run_id,
            order_no=envelope.order_no,
            task=envelope.name,
            attempt=envelope.attempt,
            execution=secrets.token_hex(4),
        )
        return Desk(self._store, prefix=prefix, scratch=self._scratch)


def _card(value: Value, envelope: TaskEnvelope, desk: Desk) -> dict[str, Any] | None:
    try:
        return card_of(value, envelope.data, desk)
    # A card must not cost the result that it describes, whatever a library makes of a file; a panic of polars is no
    # `Exception`.
    except BaseException:
        logger.warning("card.failed", exc_info=True)
        return None


def _data(task: Task, envelope: TaskEnvelope, desk: Desk) -> tuple[Any, ...]:
    return () if task.data is None else (task.data.decode(envelope.data, desk),)
