"""Runs that Prefect shows, beside flows that Prefect runs by itself, on the same server.

    python bench/prefect.py [--runs 100] [--rounds 3]

Prefect's server has the settings of `make run`, on SQLite (4 slots) and on PostgreSQL (16). Shepherd: Task Publisher
and worker are running and idle; timed from the acceptance of all runs until Prefect's API shows them all Completed,
and until Shepherd's own runs are done. Prefect by itself: flows of the same shape, called in one process, 1, 4 and 16
at a time; timed from the first call. Contenders take turns.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

# Instead of this file's own folder, in which `prefect.py` would be taken for Prefect.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.support import machine
from bench.support.figures import spread, summary
from bench.support.prefect_server import PrefectServer, prefect_running
from bench.support.processes import ROOT, bare_environ, output_of
from bench.support.running import run
from bench.support.services import Services
from bench.support.shepherd_system import ShepherdSystem
from tests.support.waiting import wait_until

_SLOTS: Final = {"sqlite": 4, "postgres": 16}
_AT_ONCE: Final = (1, 4, 16)
_WARM_UP: Final = 3
_LOOK_S: Final = 0.1
#: Of one measurement; a vanilla flow may take 3 s.
_TIMEOUT_S: Final = 900.0

Rates = dict[str, list[float]]


def measure(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    rates: dict[str, Rates] = {}
    for database in options.only or _SLOTS:
        rates[database] = _on(services, database, options)
    ratios = {}
    for database, of_database in rates.items():
        medians = {name: summary(values)["median"] for name, values in of_database.items()}
        best = max(median for name, median in medians.items() if name.startswith("vanilla"))
        ratios[f"{database}: prefect_shows/vanilla"] = round(medians["shepherd_prefect_shows"] / best, 2)
        ratios[f"{database}: done/vanilla"] = round(medians["shepherd_done"] / best, 2)
    shown = {
        database: {name: summary(values) for name, values in of_database.items()}
        for database, of_database in rates.items()
    }
    return {"runs_a_second": shown, "ratios": ratios}


def _on(services: Services, database: str, options: argparse.Namespace) -> Rates:
    rates: Rates = {}
    with prefect_running(services, database=database) as server:
        ours = {"SHEPHERD_PREFECT": "on", "SHEPHERD_PREFECT_SLOTS": str(_SLOTS[database]), **server.environ}
        system = ShepherdSystem(services, database=database, environ=ours)
        for number in range(1, options.rounds + 1):
            load = machine.load()
            figures = _shepherd(system, server, options.runs)
            for at_once in _AT_ONCE:
                figures[f"vanilla_{at_once}_at_once"] = _vanilla(server, options.runs, at_once)
            for name, rate in figures.items():
                rates.setdefault(name, []).append(rate)
            shown = ", ".join(f"{name} {rate:.2f}/s" for name, rate in figures.items())
            print(f"round {number}, Prefect on {database}: {shown} (load before: {load:g})", flush=True)
    for name, values in rates.items():
        print(f"Prefect on {database}: {name:24} {spread(values, 'runs/s')}")
    return rates


def _shepherd(system: ShepherdSystem, server: PrefectServer, runs: int) -> dict[str, float]:
    system.renew_database()
    with system.worker(), system.publisher() as publisher, system.looking() as database:
        shown = server.completed("bench")
        system.accept(_WARM_UP)
        _wait_completed(server, "bench", shown + _WARM_UP)
        began = system.accept(runs)
        done = database.wait_unended(0, timeout_s=_TIMEOUT_S, alive=publisher)
        completed = _wait_completed(server, "bench", shown + _WARM_UP + runs)
    return {"shepherd_prefect_shows": runs / (completed - began), "shepherd_done": runs / (done - began)}


def _vanilla(server: PrefectServer, flows: int, at_once: int) -> float:
    shown = server.completed("vanilla")
    environ = {**bare_environ(), **server.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    command = [sys.executable, "-m", "bench.support.vanilla_flows", str(flows), str(at_once)]
    said: dict[str, float] = json.loads(output_of(command, environ=environ, timeout_s=_TIMEOUT_S).splitlines()[-1])
    # Usually at once: a flow is Completed in the API before its call returns.
    completed = _wait_completed(server, "vanilla", shown + flows, last_seen=said["ended"])
    return flows / (completed - said["began"])


def _wait_completed(server: PrefectServer, flow: str, count: int, *, last_seen: float | None = None) -> float:
    """Return when so many were Completed: at `last_seen` if they are already."""
    if last_seen is not None and server.completed(flow) >= count:
        return last_seen
    what = f"{count} runs of {flow}, Completed"
    wait_until(lambda: server.completed(flow) >= count, timeout_s=_TIMEOUT_S, what=what, every_s=_LOOK_S)
    return time.time()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(_SLOTS), action="append", help="Prefect on one database")
    options = parser.parse_args()
    return run(measure, options, runs=options.runs)


if __name__ == "__main__":
    sys.exit(main())
