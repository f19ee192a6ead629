"""Publishers in flows: those that fail, publish twice or never, and what is left of one after a crash."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.trial import Trial, trial
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("publishers")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Trial]:
    with trial(folder) as running:
        yield running


@pytest.fixture
def running(shared: Trial) -> Trial:
    shared.forget()
    return shared


def ended(running: Trial, *tasks: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return running.system.wait_ended(running.post(*tasks, project="odd")["id"])


def statuses(run: dict[str, Any]) -> list[str]:
    return [run["status"], *(task["status"] for task in run["tasks"])]


def test_an_exception_in_a_publisher_fails_the_run_with_its_traceback(running: Trial) -> None:
    run = ended(running, ("fails", {}), ("nap", {}))

    assert statuses(run) == ["failed", "failed", "pending"]
    error = run["tasks"][0]["error"]
    assert error["code"] == "publisher_failed"
    assert "no such key in the publisher" in error["message"]
    assert "flow.py" in error["traceback"]
    assert running.executed() == []
    flow_run = running.in_prefect(run, wanted="FAILED", tasks=1)
    assert [task_run["name"] for task_run in flow_run["task_runs"]] == ["fails"]


def test_a_publisher_that_publishes_twice_gets_the_first_result_twice(running: Trial) -> None:
    run = ended(running, ("echo", {"n": 1}), ("columns_of", {}))

    assert running.executed() == ["echo", "columns_of"]
    first = {"context": {"n": 1}, "data": None}
    assert run["tasks"][0]["result"] == {"inline": first}
    # Two records are no table of numbers: what counts is that the second task got both.
    assert run["tasks"][1]["status"] == "succeeded", run["tasks"][1]
    assert run["tasks"][1]["result"]["inline"]["context"] == [{"n": 1}, {"n": 1}]


def test_a_publisher_that_never_publishes_fails_the_run_and_is_named(running: Trial) -> None:
    run = ended(running, ("skip_column", {"columns": ["a"]}), ("nap", {}))

    assert statuses(run) == ["failed", "failed", "pending"]
    assert run["tasks"][0]["error"]["code"] == "not_published"
    assert "'skip_column'" in run["tasks"][0]["error"]["message"]


def test_a_task_that_fails_is_told_to_its_publisher_by_the_flag(running: Trial, folder: Path) -> None:
    run = ended(running, ("tell_failure", {}))

    assert statuses(run) == ["failed", "failed"]
    calls = wait_until((folder / "calls").read_text, timeout_s=10, what="what the publisher noted")
    assert "True told to the publisher" in calls


def test_a_table_goes_through_a_publisher_as_a_handle_or_as_a_frame_of_its_own(running: Trial) -> None:
    run = ended(running, ("frame", {}), ("columns_of", {}))

    assert run["status"] == "succeeded", run
    assert run["tasks"][1]["result"] == {"inline": {"a": [1, 2], "b": [10, 20], "c": [11, 22]}}


def test_a_publisher_is_called_again_after_a_crash_and_its_task_is_not_executed_again(
    running: Trial, folder: Path
) -> None:
    (folder / "calls").write_text("")
    posted = running.post(("nap", {"seconds": 4}), ("nap", {}), project="odd")
    wait_until(lambda: running.executed() == ["nap"], timeout_s=30, what="the first task in its worker")

    running.system.kill("task-publisher")
    running.system.start("task-publisher")
    run = running.system.wait_ended(posted["id"])

    assert statuses(run) == ["succeeded"] * 3
    assert running.executed() == ["nap", "nap"]
    assert [len(task["attempts"]) for task in run["tasks"]] == [1, 1]
    assert (folder / "calls").read_text().split() == ["nap"] * 3
    flow_run = running.in_prefect(run)
    states = [(task_run["name"], task_run["state_type"]) for task_run in flow_run["task_runs"]]
    assert states.count(("nap", "COMPLETED")) == 2
    # What the dead process left in the middle is marked, in the same flow run.
    assert set(states) <= {("nap", "COMPLETED"), ("nap", "CRASHED")}
