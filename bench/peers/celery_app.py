"""Celery: a chain of two tasks. Settings: BENCH_BROKER_URL, and BENCH_RESULTS `rpc` or a database's URL."""

import json
import os
import sys
import time

from celery import Celery, chain
from kombu import Exchange, Queue
from sqlalchemy import create_engine, text

RESULTS = os.environ["BENCH_RESULTS"]
IS_RPC = RESULTS == "rpc"
#: For all results.
WITHIN_S = 300
PAUSE_S = 0.02

app = Celery("celery_app", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    result_backend="rpc://" if IS_RPC else RESULTS.replace("postgresql://", "db+postgresql+psycopg2://"),
    # Where Celery's tables don't exist yet, processes that start at once would create them at once.
    database_create_tables_at_setup=False,
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
    task_default_queue="bench_celery" if IS_RPC else "bench_celery_durable",
)
if IS_RPC:
    # Nothing durable: neither the queue nor what is in it.
    app.conf.task_default_delivery_mode = "transient"
    app.conf.task_queues = [
        Queue("bench_celery", Exchange("bench_celery", durable=False), routing_key="bench_celery", durable=False)
    ]
    app.conf.task_default_exchange = app.conf.task_default_routing_key = "bench_celery"


@app.task
def bench_first(context):
    return context


@app.task
def bench_second(data):
    return data


@app.task
def bench_clock_first(context):
    began_ns = time.time_ns()
    del context
    return {"first_began_ns": began_ns, "first_ended_ns": time.time_ns()}


@app.task
def bench_clock_second(data):
    began_ns = time.time_ns()
    return {**data, "second_began_ns": began_ns}


def payload(n):
    return {"n": n, "source": "bench", "columns": ["id", "name", "value"]}


def submit(count):
    """Return the seconds from the first submission to the last result known."""
    stored = None if IS_RPC else Stored()
    began = time.perf_counter()
    results = [chain(bench_first.s(payload(n)), bench_second.s()).apply_async() for n in range(count)]
    if stored is None:
        for result in results:
            result.get(timeout=WITHIN_S)
    else:
        stored.wait(2 * count)
    return time.perf_counter() - began


class Stored:
    """Counts the rows of results: cheaper than Celery's own way, which asks for each result again and again."""

    def __init__(self):
        self.connection = create_engine(RESULTS.replace("postgresql://", "postgresql+psycopg2://")).connect()
        self.connection = self.connection.execution_options(isolation_level="AUTOCOMMIT")
        self.before = self.count()

    def count(self):
        return self.connection.execute(
            text("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
        ).scalar_one()

    def wait(self, count):
        deadline = time.monotonic() + WITHIN_S
        while self.count() - self.before < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} results were not stored after {WITHIN_S} s")
            # As long as between two looks at Shepherd's database: the table can only be asked.
            time.sleep(PAUSE_S)


def latency(count):
    """Return what each of so many chains, one at a time, says of its times; the time of submission added."""
    said = []
    for n in range(count):
        submitted_ns = time.time_ns()
        result = chain(bench_clock_first.s(payload(n)), bench_clock_second.s()).apply_async()
        said.append({"submitted_ns": submitted_ns, **result.get(timeout=30)})
        # So that no chain meets what the one before it left to do.
        time.sleep(PAUSE_S)
    return said


def main():
    verb, count = sys.argv[1], int(sys.argv[2])
    if not IS_RPC:
        app.backend.ResultSession()
    # The first ones open connections.
    if verb == "submit":
        submit(20)
        print(json.dumps({"seconds": submit(count)}))
    elif verb == "latency":
        latency(5)
        print(json.dumps(latency(count)))
    elif verb == "prepare" and not IS_RPC:
        from celery.backends.database.session import ResultModelBase

        ResultModelBase.metadata.create_all(create_engine(RESULTS.replace("postgresql://", "postgresql+psycopg2://")))


if __name__ == "__main__":
    main()
