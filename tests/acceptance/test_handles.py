"""Cancel, resume and rerun on real processes, with and without publishers."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.trial import Trial, trial
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("trial")) as running:
        yield running


@pytest.fixture
def running(shared: Trial) -> Trial:
    shared.forget()
    return shared


def act(running: Trial, run: dict[str, Any], handle: str, **body: Any) -> dict[str, Any]:
    answer = running.system.api.post(f"/runs/{run['id']}/{handle}", json=body)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def reached(running: Trial, run: dict[str, Any], position: int, *statuses: str) -> dict[str, Any]:
    """Return the run once its task is in one of these statuses."""

    def there() -> dict[str, Any] | None:
        now: dict[str, Any] = running.system.get(f"/runs/{run['id']}")
        return now if now["tasks"][position]["status"] in statuses else None

    return wait_until(there, timeout_s=60, what=f"task {position} of run {run['number']} in {statuses}") or {}


def test_a_cancelled_task_is_killed_and_its_worker_takes_the_next(running: Trial) -> None:
    runs = [running.post(("nap", {"seconds": 600}), ("echo", {})) for _ in range(4)]
    for run in runs:
        reached(running, run, 0, "running")

    for run in runs:
        assert act(running, run, "cancel")["status"] == "cancelled"
    after = running.system.wait_ended(running.post(("nap", {}), ("echo", {}))["id"])

    assert after["status"] == "succeeded"
    assert running.executed() == ["nap"] * 5 + ["echo"]
    for run in runs:
        ended = running.system.get(f"/runs/{run['id']}")
        assert [task["status"] for task in ended["tasks"]] == ["cancelled", "pending"]
        assert [attempt["status"] for attempt in ended["tasks"][0]["attempts"]] == ["withdrawn"]


def test_a_task_cancelled_in_its_queue_is_never_executed(running: Trial) -> None:
    busy = [running.post(("nap", {"seconds": 600})) for _ in range(4)]
    for run in busy:
        reached(running, run, 0, "running")
    waiting = running.post(("nap", {"seconds": 600}), ("echo", {}))
    reached(running, waiting, 0, "published")

    act(running, waiting, "cancel")
    for run in busy:
        act(running, run, "cancel")
    after = running.system.wait_ended(running.post(("nap", {}))["id"])

    assert after["status"] == "succeeded"
    assert running.executed() == ["nap"] * 5


def test_a_failed_run_goes_on_with_a_corrected_context(running: Trial) -> None:
    run = running.system.wait_ended(running.post(("frame", {}), ("fails", {"needed": 1}), ("nap", {}))["id"])
    assert (run["status"], run["tasks"][1]["error"]["code"]) == ("failed", "key_error")

    act(running, run, "resume", contexts={"fails": {"wanted": "x"}})
    again = running.system.wait_ended(run["id"])

    assert running.executed() == ["frame", "fails", "fails"]
    first, second = again["tasks"][1]["attempts"]
    assert (first["context"], second["context"]) == ({"needed": 1}, {"wanted": "x"})
    assert "no x here" in second["error"]["message"]


def test_a_run_with_publishers_is_driven_again_from_where_it_stopped(running: Trial) -> None:
    run = running.post(("echo", {}), ("nap", {"seconds": 600}), project="led")
    reached(running, run, 1, "running")
    act(running, run, "cancel")
    shown = running.in_prefect(run, wanted="CANCELLED", tasks=2)
    assert [task_run["state_type"] for task_run in shown["task_runs"]] == ["COMPLETED", "CANCELLED"]

    act(running, run, "resume", contexts={"nap": {"seconds": 0}})
    ended = running.system.wait_ended(run["id"])

    assert ended["status"] == "succeeded", ended
    assert running.executed() == ["echo", "nap", "nap"]
    assert ended["tasks"][1]["result"]["inline"][1] == "changed"
    assert [attempt["status"] for attempt in ended["tasks"][1]["attempts"]] == ["withdrawn", "succeeded"]
    running.in_prefect(ended)


def test_a_run_resumed_at_once_is_driven_by_a_new_flow(running: Trial) -> None:
    run = running.post(("nap", {"seconds": 600}), project="led")
    reached(running, run, 0, "running")

    act(running, run, "cancel")
    act(running, run, "resume", contexts={"1": {"seconds": 0}})
    ended = running.system.wait_ended(run["id"])

    assert ended["status"] == "succeeded", ended
    assert running.executed() == ["nap", "nap"]


def test_a_run_again_is_a_run_of_its_own(running: Trial) -> None:
    run = running.system.wait_ended(running.post(("frame", {}), ("nap", {}))["id"])

    again = running.system.wait_ended(act(running, run, "rerun")["id"])

    assert (again["status"], again["origin"]) == ("succeeded", run["number"])
    assert running.executed() == ["frame", "nap"] * 2
