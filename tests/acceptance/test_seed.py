"""The seed's text, step by step, through a shell as somebody follows it who has only that text."""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.folders import ROOT
from tests.support.ports import free_port
from tests.support.system import System, started
from tests.support.waiting import wait_until

#: The seed's sample request, to the letter.
SAMPLE = """
{
 "pipeline_name": "sentinel_pipeline",
 "data_url": "",
 "project": "ids-drr",
  "transformers_list" : [
       {
          "name": "sentinel",
          "order_no": 1,
          "context": {
              "date_start": "2023-05-01",
              "date_end": "2023-06-01"
          }
       },
       {
          "name": "sentinel_upload_to_s3",
          "order_no": 2,
          "context": {}
       }
    ]
}
"""

Shell = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects")
    (folder / "ids_drr" / "workers").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def system(projects: Path) -> Iterator[System]:
    with started(projects=projects) as running:
        yield running


@pytest.fixture
def shell(system: System) -> Iterator[Shell]:
    """Return a function that starts a command as typed into a second terminal; all end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(command: str, *, folder: Path = ROOT) -> "subprocess.Popen[str]":
        python = shlex.quote(str(ROOT / ".shepherd" / "venv" / "bin" / "python"))
        process = subprocess.Popen(
            f"exec {command.replace('python ', f'{python} ', 1)}",
            shell=True,
            cwd=folder,
            env={**system.environ, "PYTHONPATH": str(ROOT / "src")},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.terminate()
        process.communicate(timeout=30)


def _printed(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def test_runserver_is_the_entry_point_that_listens_to_requests(system: System, shell: Shell) -> None:
    port = free_port()

    shell(f"python manage.py runserver {port} --noreload")

    headers = {"Authorization": f"Bearer {system.credentials.token}"}
    wait_until(lambda: _status(f"http://127.0.0.1:{port}/api/v1/runs", headers) == 200, timeout_s=60, what="runserver")


def test_a_second_task_publisher_says_why_it_ends(system: System, shell: Shell) -> None:
    wait_until(lambda: _is_serving(system.log("task-publisher")), timeout_s=60, what="the first Task Publisher")

    process = shell("python manage.py runscript worker_demon.py")

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "already serves" in output


def test_the_generated_publisher_and_worker_run_the_seeds_own_request(
    system: System, shell: Shell, projects: Path, tmp_path: Path
) -> None:
    flow = [
        _printed(shell(f"python -m code_templates.publisher_template --task_name '{name}'"))
        for name in ("sentinel", "sentinel_upload_to_s3")
    ]
    (projects / "ids_drr" / "flow.py").write_text("\n\n".join(map(_with_mark, flow)))
    for name in ("sentinel", "sentinel_upload_to_s3"):
        _printed(shell(f'python task_template.py --task_name "{name}" --result_file "{tmp_path / name}"'))
        _write_logic(tmp_path / f"{name}.py")
        shell(f"python {name}.py", folder=tmp_path)
    # As the seed has it: the publishing daemon is started by its old name, ending and all.
    system.stop("task-publisher")
    daemon = shell("python manage.py runscript worker_demon.py")

    answer = system.api.post("/runs", content=SAMPLE, headers={"Content-Type": "application/json"})
    run = system.wait_ended(answer.json()["id"])

    assert run["status"] == "succeeded", run
    first, second = (task["result"]["inline"] for task in run["tasks"])
    shown = wait_until(lambda: _in_prefect(system, run), timeout_s=60, what="the flow run in Prefect") or {}
    daemon.terminate()
    daemon.wait(30)
    system.start("task-publisher")

    mark = {"published_in": shown["id"]}
    assert first == {"context": {"date_start": "2023-05-01", "date_end": "2023-06-01", **mark}, "data": None}
    assert second == {"context": mark, "data": first}
    assert shown["tasks"] == ["sentinel", "sentinel_upload_to_s3"]


def _is_serving(log: str) -> bool:
    return log.count("publisher.started") > log.count("publisher.stopped")


def _with_mark(publisher: str) -> str:
    """Add what shows in which flow run the publisher was called."""
    before = "    data, exception_flag = await"
    assert publisher.count(before) == 1
    mark = '    from prefect.runtime import flow_run\n    context = {**context, "published_in": str(flow_run.id)}\n'
    return publisher.replace(before, mark + before)


def _write_logic(worker: Path) -> None:
    """Do what the template's comment asks for: put the task's logic where it says."""
    text = worker.read_text()
    assert "# The task's logic goes here." in text
    worker.write_text(text.replace("result = data\n", 'result = {"context": context, "data": data}\n'))


def _in_prefect(system: System, run: dict[str, Any]) -> dict[str, Any] | None:
    flow_run = system.get(f"/runs/{run['id']}")["prefect"]["flow_run_id"]
    if flow_run is None:
        return None
    address = system.environ["PREFECT_API_URL"]
    state = httpx.get(f"{address}/flow_runs/{flow_run}", timeout=30, trust_env=False).json()
    by = {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "EXPECTED_START_TIME_ASC"}
    tasks = httpx.post(f"{address}/task_runs/filter", json=by, timeout=30, trust_env=False).json()
    done = [task["name"] for task in tasks if task["state_type"] == "COMPLETED"]
    is_done = state["state_type"] == "COMPLETED" and len(done) == len(run["tasks"])
    return {"id": flow_run, "tasks": done} if is_done else None


def _status(url: str, headers: dict[str, str]) -> int:
    try:
        return httpx.get(url, headers=headers, timeout=10, trust_env=False).status_code
    except httpx.HTTPError:
        return 0
