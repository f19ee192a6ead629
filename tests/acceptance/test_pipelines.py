"""Pipelines on real processes: web, Task Publisher, Prefect, RabbitMQ, two workers of the same names."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shepherd.site.local import flights
from shepherd.site.local.pipeline import body as five_tasks
from tests.acceptance.trial import Trial, trial
from tests.support.folders import TEST_FOLDER
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("trial")) as running:
        yield running


@pytest.fixture
def running(shared: Trial) -> Trial:
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def flights_url() -> Iterator[str]:
    with flights.serving(TEST_FOLDER / "flights") as url:
        yield url


def test_five_tasks_over_all_flights_run_in_order_and_give_what_polars_computes(
    running: Trial, flights_url: str
) -> None:
    document = {**five_tasks(flights_url), "project": "trial"}

    run = running.system.wait_ended(running.system.post(document)["id"])

    assert run["status"] == "succeeded", run
    names = [task["name"] for task in document["transformers_list"]]
    assert running.executed() == names
    expected = (
        pl.scan_csv(TEST_FOLDER / "flights" / "flights.csv", infer_schema_length=None, null_values=["NA"])
        .with_columns(
            route=pl.col("origin") + "-" + pl.col("dest"),
            carrier=pl.col("carrier").replace("UA", "carrier-1"),
        )
        .group_by("route", "carrier")
        .agg(pl.col("dep_delay").mean().alias("departure_delay"), pl.col("arr_delay").mean())
        .collect()
    )
    claim = run["tasks"][-1]["result"]["claim"]
    result = pl.read_parquet(claim["uri"].removeprefix("file://"))
    order = ["route", "carrier"]
    assert result.height == expected.height
    columns = [*order, "departure_delay", "arr_delay"]
    left, right = (frame.select(columns).sort(order) for frame in (result, expected))
    assert left.select(order).equals(right.select(order))
    for column in columns[2:]:
        assert ((left[column] - right[column]).abs().fill_null(0.0) < 1e-9).all()
        assert left[column].null_count() == right[column].null_count()
    flow_run = running.in_prefect(run)
    assert [task_run["name"] for task_run in flow_run["task_runs"]] == names
    assert {task_run["state_type"] for task_run in flow_run["task_runs"]} == {"COMPLETED"}
    assert [span(task_run, "start_time", "end_time") for task_run in flow_run["task_runs"]] == [
        span(task, "started_at", "finished_at") for task in run["tasks"]
    ]


def test_two_workers_share_fifty_runs_and_repeat_none(running: Trial) -> None:
    posted = [running.post(("nap", {"seconds": 0.1})) for _ in range(50)]
    ended = [running.system.wait_ended(run["id"]) for run in posted]

    assert {run["status"] for run in ended} == {"succeeded"}
    assert running.executed() == ["nap"] * 50
    shares = running.executed_by()
    assert len(shares) == 2
    assert min(shares.values()) >= 10


def test_a_failing_task_ends_its_run_and_what_follows_stays_pending(running: Trial) -> None:
    posted = running.post(("fails", {"wanted": "gold"}), ("nap", {}))

    run = running.system.wait_ended(posted["id"])

    assert run["status"] == "failed"
    assert [task["status"] for task in run["tasks"]] == ["failed", "pending"]
    error = run["tasks"][0]["error"]
    assert error["message"] == "no gold here"
    assert "in fails" in error["traceback"]
    assert 'LookupError(f"no' in error["traceback"]
    flow_run = running.in_prefect(run, wanted="FAILED", tasks=1)
    assert flow_run["name"] == f"run-{run['number']}"
    assert flow_run["state"]["message"].startswith("fails: no gold here (from ")
    assert [(each["name"], each["state_type"], each["state"]["message"]) for each in flow_run["task_runs"]] == [
        ("fails", "FAILED", "no gold here")
    ]
    assert running.executed() == ["fails"]
    lines = wait_until(
        lambda: running.system.get(f"/runs/{run['id']}/logs")["lines"], timeout_s=10, what="the task's log"
    )
    assert [(line["task"], line["n"], line["level"], line["text"]) for line in lines] == [
        ("fails", 1, "INFO", "about to fail")
    ]


def test_a_task_that_nobody_serves_waits_and_says_why(running: Trial) -> None:
    posted = running.post(("nobody_ever", {}))

    run = wait_until(
        lambda: (found := running.system.get(f"/runs/{posted['id']}"))["status"] == "running" and found,
        timeout_s=10,
        what="the run started",
    )

    assert run["reason"] == "No worker has ever announced 'nobody_ever'."
    assert [warning["path"] for warning in posted["warnings"]] == ["transformers_list[0].name"]


def test_runs_with_a_publisher_that_waits_do_not_wait_for_each_other(running: Trial) -> None:
    begun = time.monotonic()
    posted = [running.post(("nap", {}), project="led") for _ in range(10)]
    ended = [running.system.wait_ended(run["id"]) for run in posted]
    took_s = time.monotonic() - begun

    assert {run["status"] for run in ended} == {"succeeded"}
    assert took_s < 15


def test_a_publisher_may_change_the_context_and_the_data(running: Trial) -> None:
    posted = running.post(("nap", {}), ("echo", {"own": True}), ("echo", {}), project="led")

    run = running.system.wait_ended(posted["id"])

    first, second = (task["result"]["inline"] for task in run["tasks"][1:])
    assert first["context"] == {"own": True, "from_publisher": None}
    assert second["data"] == [first["context"], "changed"]
    flow_run = running.in_prefect(run)
    assert [task_run["name"] for task_run in flow_run["task_runs"]] == ["nap", "echo", "echo"]


def test_a_worker_that_starts_after_the_task_was_published_gets_it(running: Trial, tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text(
        "from shepherd.worker import Worker\n\n\ndef late(context, data_path):\n    return 7\n\n\n"
        'Worker("late").add_task(late).start_worker()\n'
    )
    posted = running.post(("late", {}))
    wait_until(
        lambda: running.system.get(f"/runs/{posted['id']}")["tasks"][0]["status"] == "published",
        timeout_s=10,
        what="the task published",
    )

    running.system.start_worker("late", file)

    run = running.system.wait_ended(posted["id"])
    assert run["tasks"][0]["result"] == {"inline": 7}
    running.system.stop("late")


def span(document: dict[str, Any], start: str, end: str) -> list[str]:
    # The API gives milliseconds.
    times = [datetime.fromisoformat(document[each]) for each in (start, end)]
    return [each.isoformat(timespec="milliseconds") for each in times]
