"""How long a task's code waits, one run at a time, beside Celery's chain.

    python bench/latency.py [--runs 200] [--rounds 3]

Shepherd: web process, Task Publisher and worker as `make run` starts them, Prefect off, on SQLite and on PostgreSQL.
`submit`: from sending the POST to the first line of the first task's code. `gap`: from the last line of the first
task's code to the first line of the second. Celery with rpc results, 4 processes, nothing durable; the same figures,
with `apply_async` for the POST. Contenders take turns.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

# Instead of this file's own folder, in which `prefect.py` would be taken for Prefect.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.support import machine, peers
from bench.support.figures import percentile
from bench.support.running import run
from bench.support.services import Services
from bench.support.shepherd_system import ShepherdSystem
from tests.support.ports import free_port
from tests.support.waiting import wait_until

Times = Mapping[str, int]
Contender = Callable[[int], Sequence[Times]]

_TASKS: Final = ("bench_clock_first", "bench_clock_second")
_WARM_UP: Final = 5
#: Within which a run ends.
_BEFORE_FIRST_LOOK_S: Final = 0.15
_LOOK_S: Final = 0.02
_PERCENTS: Final = (50, 99)


def shepherd(services: Services, *, database: str) -> Contender:
    system = ShepherdSystem(services, database=database)

    def measure(runs: int) -> Sequence[Times]:
        system.renew_database()
        port = free_port()
        with system.worker("clock"), system.publisher(), system.web(port), _client(port, system.token) as client:
            wait_until(lambda: _answers(client), what="the page", timeout_s=90)
            # The first ones create the queues, for which the worker waits.
            for _ in range(_WARM_UP):
                _one_run(client)
            return [_one_run(client) for _ in range(runs)]

    return measure


def celery(services: Services) -> Contender:
    peer = peers.celery(services, results="rpc")

    def measure(runs: int) -> Sequence[Times]:
        with peer.serving():
            return peer.latency_of(runs)

    return measure


def _client(port: int, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=30.0, trust_env=False)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/runs").is_success
    except httpx.HTTPError:
        return False


def _one_run(client: httpx.Client) -> Times:
    submitted_ns = time.time_ns()
    answer = client.post("/runs", json=_DOCUMENT)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    address = f"/runs/{answer.json()['id']}"
    # Nobody asks meanwhile, as that would be work for the processes measured. Not always as long: otherwise every run
    # could meet the same moment between two sweeps.
    time.sleep(_BEFORE_FIRST_LOOK_S + random.uniform(0, 0.1))
    ended: list[dict[str, Any]] = []

    def look() -> bool:
        run = client.get(address).json()
        ended[:] = [run] if run["status"] in {"succeeded", "failed", "cancelled"} else []
        return bool(ended)

    wait_until(look, what=f"the end of {address}", timeout_s=60, every_s=_LOOK_S)
    assert ended[0]["status"] == "succeeded", ended[0]
    return {"submitted_ns": submitted_ns, **_result_of(ended[0])}


def _result_of(run: Mapping[str, Any]) -> Mapping[str, int]:
    result = run["tasks"][-1]["result"]
    value: Mapping[str, int] = result["inline"] if "inline" in result else result["value"]
    return value


_DOCUMENT: Final = {
    "pipeline_name": "latency",
    "data_url": "",
    "project": "bench",
    "transformers_list": [
        {"name": name, "order_no": order, "context": {"source": "bench"}} for order, name in enumerate(_TASKS, 1)
    ],
}


def figures_of(times: Sequence[Times]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    waits = {
        "submit": [(one["first_began_ns"] - one["submitted_ns"]) / 1e6 for one in times],
        "gap": [(one["second_began_ns"] - one["first_ended_ns"]) / 1e6 for one in times],
    }
    return {f"{name}_p{percent}_ms": percentile(ms, percent) for name, ms in waits.items() for percent in _PERCENTS}


def measure(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    contenders = {
        "shepherd_sqlite": shepherd(services, database="sqlite"),
        "shepherd_postgres": shepherd(services, database="postgres"),
        "celery_rpc": celery(services),
    }
    times: dict[str, list[Times]] = {name: [] for name in contenders}
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, options.rounds + 1):
        for name, contender in contenders.items():
            load = machine.load()
            of_round = contender(options.runs)
            times[name].extend(of_round)
            figures = figures_of(of_round)
            medians[name].append(figures["gap_p50_ms"])
            print(f"round {number}, {name}: {_shown(figures)} (load before: {load:g})", flush=True)
    all_rounds = {name: figures_of(of_name) for name, of_name in times.items()}
    for name, of_name in all_rounds.items():
        spread = f"gap p50 of the rounds: {min(medians[name]):g} to {max(medians[name]):g} ms"
        print(f"{name:20} {_shown(of_name)}; {spread}")
    celery_gap = all_rounds["celery_rpc"]["gap_p50_ms"]
    ratios = {
        f"{name} gap p50/celery_rpc": round(of_name["gap_p50_ms"] / celery_gap, 3)
        for name, of_name in all_rounds.items()
        if name != "celery_rpc"
    }
    return {"all_rounds": all_rounds, "ratios": ratios}


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {ms:g} ms" for name, ms in figures.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    peers.install()
    return run(measure, options, runs=options.runs)


if __name__ == "__main__":
    sys.exit(main())
