"""What a run costs in a long queue, and whether any process grows with it."""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

import psutil

from bench.support import machine
from bench.support.figures import summary
from bench.support.processes import resident_mb
from bench.support.services import Services
from bench.support.shepherd_system import Database, ShepherdSystem

_WARM_UP: Final = 20
_FIRST_PUBLISH: Final = "SELECT min(published_at) FROM pipelines_attempt WHERE number > "
_MOMENTS: Final = (("start", 0.98), ("middle", 0.5), ("end", 0.0))


def measure_queued(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both lengths in turns, on SQLite and on PostgreSQL."""
    names = [name for name in options.only or ("shepherd_sqlite", "shepherd_postgres") if name.startswith("shepherd")]
    costs: dict[str, dict[int, list[float]]] = {name: {options.runs: [], options.queued: []} for name in names}
    memory: dict[str, Any] = {}
    systems = {name: ShepherdSystem(services, database=name.partition("_")[2]) for name in names}
    for number in range(1, options.rounds + 1):
        for name, system in systems.items():
            for runs in (options.runs, options.queued):
                load = machine.load()
                ms, resident = _one(system, runs)
                costs[name][runs].append(ms)
                memory[f"{name}_{runs}"] = resident
                print(f"round {number}, {name}: {ms:.2f} ms a run at {runs} (load before: {load:g})", flush=True)
                _print_memory(resident)
    ratios = {
        f"{name}: {options.queued}/{options.runs}": round(
            statistics.median(of_name[options.queued]) / statistics.median(of_name[options.runs]), 3
        )
        for name, of_name in costs.items()
    }
    return {
        "ms_a_run": {name: {str(runs): summary(ms) for runs, ms in of.items()} for name, of in costs.items()},
        "resident_mb": memory,
        "ratios": ratios,
    }


def _one(system: ShepherdSystem, runs: int) -> tuple[float, dict[str, dict[str, float]]]:
    """Return the milliseconds a run from the first publish to the last result, and the memory at three moments."""
    system.renew_database()
    resident: dict[str, dict[str, float]] = {}
    with system.worker() as worker:
        system.run_to_end(_WARM_UP)
        system.accept(runs)
        with system.looking() as database, system.publisher() as publisher:
            before = database.number("SELECT max(number) FROM pipelines_attempt")
            ended = time.time()
            for moment, part in _MOMENTS:
                ended = database.wait_unended(int(part * runs), timeout_s=60 + runs / 10, alive=publisher)
                resident[moment] = _resident(worker.pid, publisher.pid)
            published = _first_publish(database, before)
    return (ended - published) * 1000 / runs, resident


def _first_publish(database: Database, before: float) -> float:
    return database.number(f"{_FIRST_PUBLISH}{before:.0f}")


def _resident(worker: int, publisher: int) -> dict[str, float]:
    """Return megabytes by process: Shepherd's each, the broker's, and PostgreSQL's together."""
    found = {"task publisher": resident_mb(publisher), "worker": resident_mb(worker)}
    for number, child in enumerate(_python_children(worker), 1):
        found[f"worker child {number}"] = resident_mb(child)
    for process in psutil.Process().children(recursive=True):
        name = process.name()
        if name.startswith(("beam", "postgres")):
            found[name] = found.get(name, 0.0) + resident_mb(process.pid)
    return {name: round(mb, 1) for name, mb in found.items()}


def _python_children(pid: int) -> Sequence[int]:
    return sorted(child.pid for child in psutil.Process(pid).children(recursive=True))


def _print_memory(resident: dict[str, dict[str, float]]) -> None:
    for name in resident["end"]:
        figures = ", ".join(f"{moment} {of.get(name, 0.0):.1f}" for moment, of in resident.items())
        print(f"    {name}: {figures} MB", flush=True)
