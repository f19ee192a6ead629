"""How many two-step runs that do nothing get done in a second, beside what people would pick instead.

    python bench/throughput.py [--runs 1000] [--rounds 3] [--only NAME] [--one-name] [--queued 10000]

Shepherd: the runs were accepted beforehand, one worker process with 4 slots is there and idle; timed from the start of
the Task Publisher's process to the last recorded result, audit rows on, Prefect off. The peers: the same two steps and
payload, 4 worker processes, warm; timed from the first submission to the last result known. Contenders take turns.
`--one-name` gives Shepherd's worker one queue, as the peers' have, instead of one for each step.
`--queued` measures instead what a run costs in a queue that is longer, and the memory of every process.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# Instead of this file's own folder, in which `prefect.py` would be taken for Prefect.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.support import machine, peers
from bench.support.figures import ratio, spread, summary
from bench.support.queued import measure_queued
from bench.support.running import run
from bench.support.services import Services
from bench.support.shepherd_system import ShepherdSystem

#: Figures of one round, in runs a second.
Figures = Mapping[str, float]
Contender = Callable[[int], Figures]

_WARM_UP: Final = 20
_FIRST_PUBLISH: Final = "SELECT min(published_at) FROM pipelines_attempt"
_PEERS: Final = ("celery_rpc", "celery_postgres", "dramatiq", "taskiq")
_OURS: Final = ("shepherd_sqlite", "shepherd_postgres")
_NAMES: Final = (*_OURS, *_PEERS)


def shepherd(services: Services, *, database: str, one_name: bool) -> Contender:
    system = ShepherdSystem(services, database=database)
    worker, tasks = ("one_name", ("bench_step", "bench_step")) if one_name else ("steps", ())

    def measure(runs: int) -> Figures:
        system.renew_database()
        with system.worker(worker):
            system.run_to_end(_WARM_UP, *tasks)
            system.accept(runs, *tasks)
            with system.looking() as looking:
                before = looking.number("SELECT max(number) FROM pipelines_attempt")
                began = time.time()
                with system.publisher() as publisher:
                    ended = looking.wait_unended(0, timeout_s=60 + runs / 10, alive=publisher)
                published = looking.number(f"{_FIRST_PUBLISH} WHERE number > {before:.0f}")
                succeeded = looking.number("SELECT count(*) FROM pipelines_run WHERE status = 'succeeded'")
        assert succeeded == runs + _WARM_UP, "a run failed"
        return {"from_start": runs / (ended - began), "from_first_publish": runs / (ended - published)}

    return measure


def peer(made: peers.Peer) -> Contender:
    def measure(runs: int) -> Figures:
        with made.serving():
            return {"from_start": runs / made.seconds_of(runs)}

    return measure


def contenders(services: Services, names: Sequence[str], *, one_name: bool) -> dict[str, Contender]:
    makers: dict[str, Callable[[], Contender]] = {
        "shepherd_sqlite": lambda: shepherd(services, database="sqlite", one_name=one_name),
        "shepherd_postgres": lambda: shepherd(services, database="postgres", one_name=one_name),
        "celery_rpc": lambda: peer(peers.celery(services, results="rpc")),
        "celery_postgres": lambda: peer(peers.celery(services, results="postgres")),
        "dramatiq": lambda: peer(peers.dramatiq(services)),
        "taskiq": lambda: peer(peers.taskiq(services)),
    }
    return {name: makers[name]() for name in names}


def measure(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[str, list[Figures]] = {name: [] for name in options.only or _NAMES}
    made = contenders(services, list(rounds), one_name=options.one_name)
    for number in range(1, options.rounds + 1):
        for name, contender in made.items():
            load = machine.load()
            figures = contender(options.runs)
            rounds[name].append(figures)
            shown = ", ".join(f"{value:.0f}/s {key.replace('_', ' ')}" for key, value in figures.items())
            print(f"round {number}, {name}: {shown} (load before: {load:g})", flush=True)
    return summarized(rounds)


def summarized(rounds: Mapping[str, list[Figures]]) -> dict[str, Any]:
    rates = {
        f"{name}{suffix}": [figures[key] for figures in of_name]
        for name, of_name in rounds.items()
        for key, suffix in (("from_start", ""), ("from_first_publish", "_from_first_publish"))
        if key in of_name[0]
    }
    for name, values in rates.items():
        print(f"{name:36} {spread(values, 'runs/s')}")
    ratios = {
        f"{ours}/{theirs}": ratio(rates[ours], rates[theirs])
        for ours in rates
        if ours.startswith("shepherd")
        for theirs in _PEERS
        if theirs in rates
    }
    return {"runs_a_second": {name: summary(values) for name, values in rates.items()}, "ratios": ratios}


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=_NAMES, action="append", help="one contender; may be given again")
    parser.add_argument("--one-name", action="store_true", help="both steps are one task: a worker of one queue")
    parser.add_argument("--queued", type=int, default=0, metavar="RUNS", help="a long queue against one of --runs")
    return parser.parse_args(arguments)


def main() -> int:
    options = options_of(sys.argv[1:])
    if not options.queued:
        peers.install()
    return run(measure_queued if options.queued else measure, options, runs=options.runs)


if __name__ == "__main__":
    sys.exit(main())
