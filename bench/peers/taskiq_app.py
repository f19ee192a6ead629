"""taskiq: a pipeline of two tasks over aio-pika. Settings: BENCH_BROKER_URL, BENCH_SOCKET."""

import asyncio
import json
import os
import sys
import time

from taskiq import AsyncResultBackend
from taskiq_aio_pika import AioPikaBroker
from taskiq_pipelines import Pipeline, PipelineMiddleware
from wire import Teller, Told

#: Submissions under way at once.
AT_ONCE = 100


class Datagrams(AsyncResultBackend):
    """A store of results would be one more server."""

    def __init__(self):
        self.teller = Teller()

    async def set_result(self, task_id, result):
        self.teller.tell(task_id)

    async def is_result_ready(self, task_id):
        return False

    async def get_result(self, task_id, with_logs=False):
        # The interface wants it; taskiq asks for a result only after `is_result_ready`, which never says so here.
        raise NotImplementedError


broker = (
    AioPikaBroker(os.environ["BENCH_BROKER_URL"])
    .with_result_backend(Datagrams())
    .with_middlewares(PipelineMiddleware())
)


# Named: started as a program, this module has another name than in the worker.
@broker.task("bench_first")
async def bench_first(context: dict) -> dict:
    return context


@broker.task("bench_second")
async def bench_second(data: dict) -> dict:
    return data


def payload(n):
    return {"n": n, "source": "bench", "columns": ["id", "name", "value"]}


async def submit(told, count):
    began = time.perf_counter()
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        await asyncio.gather(*(Pipeline(broker, bench_first).call_next(bench_second).kiq(payload(n)) for n in numbers))
    # Each task tells its result.
    return await asyncio.to_thread(told.wait, 2 * count) - began


async def main():
    told = Told()
    await broker.startup()
    await submit(told, 20)
    print(json.dumps({"seconds": await submit(told, int(sys.argv[2]))}))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
