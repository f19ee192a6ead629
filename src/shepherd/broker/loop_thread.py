"""An event loop in a thread of its own, behind calls that any thread can make."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from shepherd.errors import BrokerUnavailableError

logger = logging.getLogger(__name__)

#: The loop never waits; a machine may.
_UNWATCH_S: Final = 10.0

_T = TypeVar("_T")


class LoopThread:
    """A daemon thread that runs one event loop until it is stopped."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_stopped = False
        self._posts: deque[Callable[[], None]] = deque()
        self._is_roused = False
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        # What was posted last is begun, and told with all else that it is over.
        self._run_posts()
        await asyncio.sleep(0)
        await _cancel_all()

    def call(self, coroutine: Coroutine[Any, Any, _T], *, timeout_s: float) -> _T:
        """Run a coroutine on the loop and return its result.

        Raises:
            BrokerUnavailableError: It didn't end in time (it is cancelled then), or the loop was stopped.
        """
        if self._is_stopped:
            coroutine.close()
            raise BrokerUnavailableError("the connection to the broker was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise BrokerUnavailableError("the broker did not answer in time") from None
        except CancelledError:
            raise BrokerUnavailableError("the connection to the broker was closed") from None

    def post(self, callback: Callable[..., None], *arguments: object) -> bool:
        """Run a callback on the loop soon, after those posted earlier; False once the loop has stopped."""
        self._posts.append(partial(callback, *arguments))
        # One wake-up, a write into a socket, for all that is posted before the loop gets to it.
        if not self._is_roused:
            self._is_roused = True
            try:
                if threading.get_ident() == self._thread.ident:
                    self._loop.call_soon(self._run_posts)
                else:
                    self._loop.call_soon_threadsafe(self._run_posts)
            except RuntimeError:
                return False
        return not self._is_stopped

    def _run_posts(self) -> None:
        # First: whoever posts after this line rouses the loop again.
        self._is_roused = False
        while self._posts:
            run = self._posts.popleft()
            try:
                run()
            except Exception:
                logger.exception("broker.post_failed")

    def watch(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        """Call back on the loop whenever there is something to read, or the other end is closed."""
        self.post(self._watch, descriptor, on_ready)

    def _watch(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        # A number is used again; what was watched under it isn't watched anew by itself.
        self._loop.remove_reader(descriptor)
        self._loop.add_reader(descriptor, on_ready)

    def unwatch(self, descriptor: int) -> None:
        """Call back no more; when this returns, the descriptor may be closed."""
        if threading.get_ident() == self._thread.ident:
            self._loop.remove_reader(descriptor)
        else:
            with suppress(BrokerUnavailableError):
                self.call(self._unwatch(descriptor), timeout_s=_UNWATCH_S)

    async def _unwatch(self, descriptor: int) -> None:
        # What was posted before comes first: it may begin to watch.
        self._run_posts()
        self._loop.remove_reader(descriptor)

    def start(self, owner: object, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine run on the loop until it ends or its owner's are cancelled."""

        def begin() -> None:
            self._tasks[owner] = self._loop.create_task(run())

        self.post(begin)

    def cancel(self, *owners: object, timeout_s: float) -> None:
        """Cancel what was started for these, one after the other, and wait for each."""
        with suppress(BrokerUnavailableError):
            self.call(self._cancel(owners), timeout_s=timeout_s)

    async def _cancel(self, owners: Iterable[object]) -> None:
        for owner in owners:
            if task := self._tasks.pop(owner, None):
                task.cancel()
                await asyncio.wait([task])

    def stop(self, *, timeout_s: float) -> None:
        """Cancel what runs, the latest first, and wait for the thread. Safe to call again."""
        self.cancel(*reversed(list(self._tasks)), timeout_s=timeout_s)
        self._is_stopped = True
        self.post(self._loop.stop)
        self._thread.join()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
