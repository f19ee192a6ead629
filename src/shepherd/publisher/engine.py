"""Prefect's engine as the driver has it: it comes late, it may be away, and it may never come at all."""

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

logger = logging.getLogger(__name__)


class Engine:
    """For one loop. Nothing is ready until `serve` runs."""

    def __init__(self, *, slots: int, patience: timedelta) -> None:
        self._slots = slots
        self._patience_s = patience.total_seconds()
        #: Prefect's side of it; None until it is opened.
        self.prefect: Any = None
        #: Why it could not be opened.
        self._trouble = ""

    async def serve(self, report: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Open it, watch over it and have `report` use it, for ever; what breaks is begun again."""
        while True:
            try:
                await self._serve(report)
            except Exception as error:
                logger.exception("prefect.unusable")
                self._trouble, self.prefect = f"{type(error).__name__}: {error}", None
            await asyncio.sleep(self._patience_s)

    async def _serve(self, report: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        # Prefect takes seconds to import: the relay works meanwhile, and so do runs without publishers.
        flow = await asyncio.to_thread(importlib.import_module, "shepherd.publisher.flow")
        self.prefect = flow.PrefectEngine(slots=self._slots, patience=timedelta(seconds=self._patience_s))
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self.prefect.health.watch())
            parts.create_task(report(self.prefect))

    @property
    def is_ready(self) -> bool:
        return self.prefect is not None and self.prefect.health.has_answered

    @property
    def is_silent(self) -> bool:
        """True once runs that wait for it should wait no longer."""
        return bool(self._trouble) if self.prefect is None else self.prefect.health.is_silent

    @property
    def silence(self) -> str:
        """Why it is silent, as runs say it."""
        if self.prefect is None:
            return f"Prefect can't be used, {self._trouble}; the run goes on without it"
        return f"Prefect's API has not answered for {self._patience_s:g} s; the run goes on without it"
