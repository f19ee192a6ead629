"""The pool that fetches each run's `data_url`, off the way of everything else."""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.db import close_old_connections

from shepherd.errors import InvalidInputError, ShepherdError, TransientError
from shepherd.pipelines.models import Run
from shepherd.publisher.fetcher import Fetcher
from shepherd.publisher.relay import Relay
from shepherd.wire.envelope import TaskError

logger = logging.getLogger(__name__)

_THREADS: Final = 2


class Fetching:
    """Fetches what runs need. A run that is already being fetched isn't fetched twice by the same process."""

    def __init__(self, relay: Relay, fetcher: Fetcher) -> None:
        self._relay = relay
        self._fetcher = fetcher
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="data-url")
        self._under_way: set[int] = set()
        self._lock = threading.Lock()

    def submit(self, due: Mapping[int, str]) -> None:
        for number, url in due.items():
            with self._lock:
                if number in self._under_way:
                    continue
                self._under_way.add(number)
            self._pool.submit(self._fetch, number, url)

    def stop(self) -> None:
        """Begin nothing more; what was begun is fetched again after a restart."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, number: int, url: str) -> None:
        close_old_connections()
        try:
            run_id = Run.objects.values_list("id", flat=True).get(number=number)
            self._relay.set_data(number, self._fetcher.fetch(url, run_id=str(run_id)))
        except ShepherdError as error:
            self._relay.fail(number, _fault(error))
        except Exception:
            # The run stays as it is; the sweep submits it again.
            logger.exception("data_url.broken_off", extra={"run": number})
        finally:
            with self._lock:
                self._under_way.discard(number)


def _fault(error: ShepherdError) -> TaskError:
    is_input = isinstance(error, InvalidInputError)
    code = error.code if is_input else "data_unavailable"
    return TaskError(code=code, message=str(error), is_retryable=isinstance(error, TransientError))
