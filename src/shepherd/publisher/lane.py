"""The calls to Prefect's API, as many at once as its database bears."""

import asyncio
import random
from typing import Final

import httpx

#: Tries at a call that Prefect's database refused, 20 to 120 ms apart. Prefect's own client waits 2, 4 and 8 s.
_TRIES: Final = 60


class Lane(httpx.AsyncHTTPTransport):
    """A transport that lets a few calls through at once, and repeats at once what was refused for a moment.

    Prefect on SQLite answers 503 to whoever comes while another one writes. One call at a time does 1.8 flows a
    second with 8 open, four at a time 1.3, with stalls of 15 s.
    """

    def __init__(self, *, calls_at_once: int) -> None:
        super().__init__(limits=httpx.Limits(max_connections=calls_at_once))
        self._places = asyncio.Semaphore(calls_at_once)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with self._places:
            for _ in range(_TRIES - 1):
                response = await super().handle_async_request(request)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return response
                await response.aread()
                await response.aclose()
                await asyncio.sleep(random.uniform(0.02, 0.12))  # noqa: S311  # No secret, only out of step.
            return await super().handle_async_request(request)
