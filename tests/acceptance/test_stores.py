"""The whole system on a bucket of S3, and a worker that keeps its data elsewhere."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shepherd.store import open_store
from tests.support.folders import ROOT
from tests.support.system import System
from tests.support.waiting import wait_until

_FILE = """
from shepherd.worker import Worker
worker = Worker()

@worker.task
def {name}(context: dict, data: {data}) -> bytes:
    return {code}

worker.run()
"""


def _worker(folder: Path, name: str, *, data: str, code: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(_FILE.format(name=name, data=data, code=code))
    return file


def _doctor(system: System) -> str:
    command = [sys.executable, "manage.py", "doctor"]
    done = subprocess.run(
        command, cwd=ROOT, env=system.environ, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout


def test_data_goes_over_a_bucket_and_past_a_worker_that_does_not_see_it(
    new_system: Callable[..., System], s3_url: str, tmp_path: Path
) -> None:
    but = ("worker-generic_transformations-columns",)
    system = new_system(environ={"SHEPHERD_STORE": s3_url, "SHEPHERD_PREFECT": "off"}, but=but)
    elsewhere = (tmp_path / "elsewhere").as_uri()
    makes = _worker(tmp_path, "make_bytes", data="object", code="b'x' * 9_000_000")
    counts = _worker(tmp_path, "count_bytes", data="bytes", code="str(len(data)).encode()")
    system.start_worker("makes", makes)
    system.start_worker("blind", counts, environ={"SHEPHERD_STORE": elsewhere})
    wait_until(lambda: "worker.sees_another_store" in system.log("blind"), timeout_s=60, what="what the worker says")

    tasks = [{"name": name, "order_no": n, "context": {}} for n, name in enumerate(("make_bytes", "count_bytes"), 1)]
    body = {"pipeline_name": "p", "data_url": "", "project": "generic-transformations", "transformers_list": tasks}
    first = system.post(body)
    wait_until(lambda: "task.handed_back" in system.log("blind"), timeout_s=60, what="the task handed back")
    system.start_worker("sighted", counts)
    run = system.wait_ended(first["id"])

    assert run["status"] == "succeeded", run
    assert s3_url in system.log("blind")
    assert elsewhere in system.log("blind")
    bucket = open_store(s3_url)
    objects = {each.key.split("/")[2].rpartition("-")[0]: each.size for each in bucket.list(f"runs/{first['id']}")}
    assert {"1-make_bytes", "2-count_bytes"} <= objects.keys()
    assert f"{s3_url} can be written and read" in _doctor(system)
