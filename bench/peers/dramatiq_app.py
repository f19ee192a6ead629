"""dramatiq: a pipeline of two actors. Settings: BENCH_BROKER_URL, BENCH_SOCKET."""

import json
import os
import sys
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import ResultBackend, Results
from wire import Teller, Told


class Datagrams(ResultBackend):
    """RabbitMQ can't keep dramatiq's results, and Redis would be one more server."""

    def __init__(self):
        super().__init__()
        self.teller = Teller()

    def _store(self, message_key, result, ttl):
        self.teller.tell(message_key)


broker = RabbitmqBroker(url=os.environ["BENCH_BROKER_URL"])
broker.add_middleware(Results(backend=Datagrams()))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench_dramatiq")
def bench_first(context):
    return context


@dramatiq.actor(queue_name="bench_dramatiq", store_results=True)
def bench_second(data):
    return data


def payload(n):
    return {"n": n, "source": "bench", "columns": ["id", "name", "value"]}


def submit(told, count):
    began = time.perf_counter()
    for n in range(count):
        dramatiq.pipeline([bench_first.message(payload(n)), bench_second.message()]).run()
    return told.wait(count) - began


def main():
    told = Told()
    submit(told, 20)
    print(json.dumps({"seconds": submit(told, int(sys.argv[2]))}))


if __name__ == "__main__":
    main()
