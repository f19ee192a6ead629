"""The pool that fetches each run's `data_url`, off the way of everything else."""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from django.db import InterfaceError, OperationalError, close_old_connections

from shepherd.errors import InvalidInputError, ShepherdError, TransientError
from shepherd.pipelines.models import Run
from shepherd.publisher.draft import FetchEndedError
from shepherd.publisher.fetcher import Fetcher
from shepherd.publisher.relay import Relay
from shepherd.wire.envelope import TaskError

logger = logging.getLogger(__name__)

_THREADS: Final = 2
#: How often what nobody has foreseen may break a run's fetch off: a full disk may have room again, a fault stays.
_TRIES: Final = 5


@dataclass(slots=True, kw_only=True)
class _Trouble:
    tries: int = 0
    #: On the monotonic clock.
    again_at: float = 0.0


class Fetching:
    """Fetches what runs need. A run that is already being fetched isn't fetched twice by the same process."""

    def __init__(self, relay: Relay, fetcher: Fetcher, *, pause_s: float = 2.0) -> None:
        self._relay = relay
        self._fetcher = fetcher
        #: After the first unforeseen error; twice as long after each next one.
        self._pause_s = pause_s
        self._troubles: dict[int, _Trouble] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="data-url")
        self._under_way: set[int] = set()
        self._lock = threading.Lock()

    def submit(self, due: Mapping[int, str]) -> None:
        """Have these runs' data fetched; to be called again for as long as it isn't there."""
        for number, url in due.items():
            with self._lock:
                trouble = self._troubles.get(number)
                if number in self._under_way or (trouble and trouble.again_at > time.monotonic()):
                    continue
                self._under_way.add(number)
            self._pool.submit(self._fetch, number, url)

    def stop(self) -> None:
        """Begin nothing more; what was begun is broken off, and fetched again after a restart."""
        # A process waits for the threads of its pools before it ends, however long a download takes.
        self._fetcher.end()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, number: int, url: str) -> None:
        close_old_connections()
        try:
            run_id = Run.objects.values_list("id", flat=True).get(number=number)
            self._relay.set_data(number, self._fetcher.fetch(url, run_id=str(run_id)))
        except FetchEndedError:
            logger.info("data_url.left", extra={"run": number})
        except ShepherdError as error:
            self._fail(number, _fault(error))
        except (OperationalError, InterfaceError):
            # The run stays as it is; the sweep submits it again until there is a database.
            logger.exception("data_url.broken_off", extra={"run": number})
        except Exception as error:
            logger.exception("data_url.broken_off", extra={"run": number})
            self._stumble(number, error)
        else:
            self._troubles.pop(number, None)
        finally:
            with self._lock:
                self._under_way.discard(number)

    def _stumble(self, number: int, error: Exception) -> None:
        """Let the sweep try again after a while, or end the run where that has been in vain."""
        with self._lock:
            trouble = self._troubles.setdefault(number, _Trouble())
            trouble.tries += 1
            trouble.again_at = time.monotonic() + self._pause_s * 2.0 ** (trouble.tries - 1)
        if trouble.tries >= _TRIES:
            reason = f"data_url can't be fetched, tried {_TRIES} times: {type(error).__name__}: {error}"
            self._fail(number, TaskError(code="data_unavailable", message=reason, is_retryable=True))

    def _fail(self, number: int, error: TaskError) -> None:
        self._relay.fail(number, error)
        self._troubles.pop(number, None)


def _fault(error: ShepherdError) -> TaskError:
    is_input = isinstance(error, InvalidInputError)
    code = error.code if is_input else "data_unavailable"
    return TaskError(code=code, message=str(error), is_retryable=isinstance(error, TransientError))
