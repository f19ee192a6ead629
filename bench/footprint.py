"""What a worker costs while it waits: resident memory of its processes, and the time that its import takes.

    python bench/footprint.py

Starts a worker with a polars annotation and a pydantic context, waits until it serves, then 10 s more. Uses the broker
that SHEPHERD_BROKER_URL names, otherwise a private node that ends with it.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Instead of this file's own folder, in which `prefect.py` would be taken for Prefect.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.support.processes import descendants, resident_mb
from shepherd.site.local.broker_node import BrokerNode
from tests.support.waiting import wait_until

IDLE_S: Final = 10.0
#: Of design: what a supervisor may take.
LIMIT_MB: Final = 60
_PORT: Final = 5794
_SERVING_WITHIN_S: Final = 60.0

_WORKER: Final = """
import polars as pl
from pydantic import BaseModel

from shepherd.worker import Worker

worker = Worker("footprint")


class Drop(BaseModel):
    columns: list[str]


@worker.task
def footprint_drop(context: Drop, data: pl.LazyFrame) -> pl.LazyFrame:
    return data.drop(context.columns)


worker.run()
"""


@contextmanager
def broker_url(folder: Path) -> Iterator[str]:
    if given := os.environ.get("SHEPHERD_BROKER_URL"):
        yield given
        return
    node = BrokerNode(folder / "broker", port=_PORT, dist_port=_PORT + 20_000, epmd_port=_PORT - 1_400)
    node.start()
    try:
        yield node.url
    finally:
        node.kill()


def measured_worker(folder: Path, url: str) -> tuple[float, list[float]]:
    """Return the supervisor's and its children's resident memory after they were idle."""
    file = folder / "footprint_worker.py"
    file.write_text(_WORKER)
    environ = {**os.environ, "SHEPHERD_BROKER_URL": url, "SHEPHERD_STORE": (folder / "store").as_uri()}
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, file], env=environ, cwd=folder, stdout=log, stderr=log)
    try:
        log_file = folder / "log"
        try:
            wait_until(lambda: "worker.serving" in log_file.read_text(), timeout_s=_SERVING_WITHIN_S, what="a worker")
        except TimeoutError:
            sys.exit(f"the worker doesn't serve:\n{log_file.read_text()}")
        # Nothing to wait for: what is measured is what it holds when nothing has happened for so long.
        time.sleep(IDLE_S)
        return resident_mb(worker.pid), [resident_mb(child.pid) for child in descendants(worker.pid)]
    finally:
        worker.terminate()
        worker.wait(30)


def import_ms(statement: str, *, rounds: int = 7) -> float:
    """Return the median time of a fresh interpreter that executes a statement."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def main() -> int:
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with broker_url(folder) as url:
            supervisor_mb, children_mb = measured_worker(folder, url)
    bare_ms, worker_ms = import_ms("pass"), import_ms("import shepherd.worker")
    print(f"supervisor after {IDLE_S:g} s idle: {supervisor_mb:.1f} MB (at most {LIMIT_MB})")
    print(f"children, with polars and pydantic: {', '.join(f'{mb:.1f}' for mb in children_mb)} MB")
    print(f"import shepherd.worker: {worker_ms - bare_ms:.0f} ms above a bare interpreter's {bare_ms:.0f} ms")
    figures = {
        "supervisor_mb": round(supervisor_mb, 1),
        "children_mb": [round(mb, 1) for mb in children_mb],
        "import_ms": round(worker_ms - bare_ms, 1),
        "bare_interpreter_ms": round(bare_ms, 1),
        "ratios": {"supervisor_of_limit": round(supervisor_mb / LIMIT_MB, 3)},
    }
    print(json.dumps(figures))
    return 0 if supervisor_mb < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
