"""Prefect by itself: `python -m bench.support.vanilla_flows FLOWS AT_ONCE` runs flows of two tasks that do nothing.

Prints when the first of them was called and the last returned, by the machine's clock; one flow before isn't counted.
All flows share one client to Prefect's API, which by itself each would open anew.
"""

import asyncio
import json
import sys
import time
from typing import Any, Final

from prefect import flow, task
from prefect.context import AsyncClientContext

_PAYLOAD: Final = {"source": "bench", "columns": ["id", "name", "value"]}


@task
async def bench_first(context: dict[str, Any]) -> dict[str, Any]:
    return context


@task
async def bench_second(data: dict[str, Any]) -> dict[str, Any]:
    return data


@flow(name="vanilla")
async def vanilla(n: int) -> None:
    await bench_second(await bench_first({"n": n, **_PAYLOAD}))


@flow(name="warm-up")
async def warm_up() -> None:
    await bench_second(await bench_first(_PAYLOAD))


async def main(flows: int, at_once: int) -> None:
    async with AsyncClientContext.get_or_create():
        await warm_up()
        await measure(flows, at_once)


async def measure(flows: int, at_once: int) -> None:
    turns = asyncio.Semaphore(at_once)

    async def one(n: int) -> None:
        async with turns:
            await vanilla(n)

    began = time.time()
    await asyncio.gather(*(one(n) for n in range(flows)))
    print(json.dumps({"began": began, "ended": time.time()}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
