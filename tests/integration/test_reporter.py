"""What a real Prefect server shows of runs that it is told of, also when whoever tells is cut off anywhere."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from shepherd.pipelines.models import Run, Task
from shepherd.pipelines.ownership import Owner
from shepherd.publisher.outcomes import Database
from shepherd.publisher.reporter import Reporter, bury
from shepherd.wire.envelope import TaskError
from tests.support.engine import Engine
from tests.support.prefect import PrefectApi

_DEADLINE_S = 30.0
OWNER = Owner(name="test", lease=timedelta(seconds=30))


class Calls:
    """Calls Prefect's API; a test may cut it off at one call, before or after that reaches Prefect, or drop events."""

    def __init__(
        self, api: PrefectApi, *, cut_at: int = -1, is_answer_lost: bool = False, drops_events: int = 0
    ) -> None:
        self._api = api
        self._cut_at, self._is_answer_lost = cut_at, is_answer_lost
        self.drops_events = drops_events
        self.made: list[tuple[str, str]] = []

    async def __call__(self, method: str, path: str, document: Any) -> Any:
        is_cut = len(self.made) == self._cut_at
        self.made.append((method, path))
        if is_cut and not self._is_answer_lost:
            raise httpx.ReadError("cut off")
        if path == "/events" and self.drops_events:
            self.drops_events -= 1
            return None
        answer = await asyncio.to_thread(self._api.call, method, path, document)
        if is_cut:
            raise httpx.ReadError("cut off")
        return answer


async def never_refused(number: int, error: Exception) -> None:
    raise AssertionError(f"run {number}: {error}")


def reporter(calls: Calls) -> Reporter:
    return Reporter(Database(threads=1), calls, never_refused, owner=OWNER, patience_s=3.0)


async def report_until(reporter: Reporter, look: Callable[[], bool]) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while not await asyncio.to_thread(look):
            await reporter.step(without=(), is_busy=False)
            await asyncio.sleep(0.1)


def is_done(run: Run) -> Callable[[], bool]:
    return lambda: Run.objects.get(pk=run.pk).prefect_state == "done"


def succeeded(engine: Engine, *names: str) -> Run:
    run = engine.accept(*names)
    engine.relay.start()
    for name in names:
        engine.clock.advance(2)
        engine.finish(engine.take(name).token)
    return run


def shown(api: PrefectApi, run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the one flow run that shows a run, and its task runs."""
    (flow_run,) = api.flow_runs(run.id)
    return flow_run, api.task_runs(flow_run["id"])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.usefixtures("database")
def test_a_run_that_is_over_is_shown_with_the_names_states_and_times_of_its_tasks(prefect_api: PrefectApi) -> None:
    run = succeeded(Engine(), "first", "second")

    calls = Calls(prefect_api)
    asyncio.run(report_until(reporter(calls), is_done(run)))

    run.refresh_from_db()
    flow_run, task_runs = shown(prefect_api, run)
    assert flow_run["id"] == str(run.prefect_flow_run_id)
    assert (flow_run["name"], flow_run["state_type"], flow_run["state_name"]) == (
        f"run-{run.number}",
        "COMPLETED",
        "Completed",
    )
    assert set(flow_run["tags"]) == {f"shepherd:{run.id}", f"project:{run.project}"}
    assert flow_run["parameters"] == {"run": run.number}
    assert flow_run["state"]["message"] == "from 2026-01-31 12:00:00 to 2026-01-31 12:00:04 UTC, 4.0 s"
    assert prefect_api.post("/flows/filter", {"flows": {"id": {"any_": [flow_run["flow_id"]]}}})[0]["name"] == "p"
    tasks = list(Task.objects.filter(run=run).order_by("position"))
    assert [(each["name"], each["state_type"], each["run_count"]) for each in task_runs] == [
        ("first", "COMPLETED", 1),
        ("second", "COMPLETED", 1),
    ]
    for task, task_run in zip(tasks, task_runs, strict=True):
        assert at(task_run["start_time"]) == task.started_at
        assert at(task_run["end_time"]) == task.finished_at
        assert task_run["total_run_time"] == 0.5
    assert [each["id"] for each in task_runs[1]["task_inputs"]["data"]] == [task_runs[0]["id"]]
    # One that makes the flow, one the flow run, one for all task runs; then one that asks for them.
    assert [path for _, path in calls.made[:3]] == ["/flows/", "/flow_runs/", "/events"]
    assert {path for _, path in calls.made[3:]} == {"/task_runs/count"}


@pytest.mark.usefixtures("sqlite_database")
def test_a_failed_run_is_shown_failed_with_its_tasks_message_and_without_what_follows(prefect_api: PrefectApi) -> None:
    engine = Engine()
    run = engine.accept("first", "second", "third")
    engine.relay.start()
    engine.finish(engine.take("first").token)
    engine.finish(engine.take("second").token, error=TaskError(code="no_gold", message="no gold here"))

    asyncio.run(report_until(reporter(Calls(prefect_api)), is_done(run)))

    flow_run, task_runs = shown(prefect_api, run)
    assert flow_run["state_type"] == "FAILED"
    assert flow_run["state"]["message"].startswith("second: no gold here (from ")
    assert [(each["name"], each["state_type"], each["state"]["message"]) for each in task_runs] == [
        ("first", "COMPLETED", ""),
        ("second", "FAILED", "no gold here"),
    ]


@pytest.mark.usefixtures("sqlite_database")
def test_a_cancelled_run_is_shown_cancelled_with_the_task_that_was_under_way(prefect_api: PrefectApi) -> None:
    engine = Engine()
    run = engine.accept("first", "second")
    engine.relay.start()
    Run.objects.filter(pk=run.pk).update(status="cancelled", finished_at=engine.clock() + timedelta(seconds=3))

    asyncio.run(report_until(reporter(Calls(prefect_api)), is_done(run)))

    flow_run, task_runs = shown(prefect_api, run)
    assert flow_run["state_type"] == "CANCELLED"
    assert [(each["name"], each["state_type"]) for each in task_runs] == [("first", "CANCELLED")]
    assert at(task_runs[0]["end_time"]) == engine.clock() + timedelta(seconds=3)


@pytest.mark.usefixtures("sqlite_database")
def test_a_run_under_way_is_shown_running_and_its_task_runs_as_they_move(prefect_api: PrefectApi) -> None:
    engine = Engine()
    run = engine.accept("first", "second")
    engine.relay.start()

    def states() -> list[str]:
        found = prefect_api.flow_runs(run.id)
        task_runs = prefect_api.task_runs(found[0]["id"]) if found else []
        return [each["state_type"] for each in (*found, *task_runs)]

    def is_shown(*wanted: str) -> bool:
        return states() == list(wanted)

    def start_first() -> None:
        engine.clock.advance(1)
        engine.start(token)

    def finish(token: str) -> None:
        engine.clock.advance(1)
        engine.finish(token)

    async def follow() -> None:
        reporting = reporter(Calls(prefect_api))
        await report_until(reporting, lambda: is_shown("RUNNING", "PENDING"))
        await asyncio.to_thread(start_first)
        await report_until(reporting, lambda: is_shown("RUNNING", "RUNNING"))
        await asyncio.to_thread(finish, token)
        await report_until(reporting, lambda: is_shown("RUNNING", "COMPLETED", "PENDING"))
        await asyncio.to_thread(lambda: finish(engine.take("second").token))
        await report_until(reporting, is_done(run))

    token = engine.take("first").token
    asyncio.run(follow())

    assert is_shown("COMPLETED", "COMPLETED", "COMPLETED")
    flow_run, _ = shown(prefect_api, run)
    assert flow_run["run_count"] == 1
    assert at(flow_run["end_time"]) > at(flow_run["start_time"])


@pytest.mark.usefixtures("sqlite_database")
@pytest.mark.parametrize("is_answer_lost", [False, True])
def test_whoever_is_cut_off_at_any_call_leaves_one_flow_run_for_the_next_to_complete(
    prefect_api: PrefectApi, is_answer_lost: bool
) -> None:
    engine = Engine()
    runs: list[Run] = []
    # One call makes the flow, one each flow run, one all task runs.
    for cut_at in range(4):
        runs += [succeeded(engine, "first", "second") for _ in range(2)]
        calls = Calls(prefect_api, cut_at=cut_at, is_answer_lost=is_answer_lost)
        with pytest.raises((httpx.ReadError, ExceptionGroup)):
            asyncio.run(reporter(calls).step(without=[run.pk for run in runs[:-2]], is_busy=False))

    asyncio.run(report_until(reporter(Calls(prefect_api)), lambda: all(is_done(run)() for run in runs)))

    for run in runs:
        flow_run, task_runs = shown(prefect_api, run)
        assert flow_run["state_type"] == "COMPLETED"
        assert [(each["name"], each["state_type"]) for each in task_runs] == [
            ("first", "COMPLETED"),
            ("second", "COMPLETED"),
        ]


@pytest.mark.usefixtures("sqlite_database")
def test_a_run_that_a_dead_process_left_running_is_ended_under_the_same_flow_run(prefect_api: PrefectApi) -> None:
    engine = Engine()
    run = engine.accept("first")
    engine.relay.start()

    def is_running() -> bool:
        return [each["state_type"] for each in prefect_api.flow_runs(run.id)] == ["RUNNING"]

    asyncio.run(report_until(reporter(Calls(prefect_api)), is_running))
    engine.finish(engine.take("first").token)
    asyncio.run(report_until(reporter(Calls(prefect_api)), is_done(run)))

    flow_run, task_runs = shown(prefect_api, run)
    assert flow_run["state_type"] == "COMPLETED"
    assert [each["state_type"] for each in task_runs] == ["COMPLETED"]


@pytest.mark.usefixtures("sqlite_database")
def test_task_runs_that_prefects_server_lost_are_told_again(prefect_api: PrefectApi) -> None:
    run = succeeded(Engine(), "first")
    calls = Calls(prefect_api, drops_events=1)

    asyncio.run(report_until(reporter(calls), is_done(run)))

    assert calls.drops_events == 0
    _, task_runs = shown(prefect_api, run)
    assert [each["state_type"] for each in task_runs] == ["COMPLETED"]


@pytest.mark.usefixtures("sqlite_database")
def test_task_runs_of_a_dead_engine_are_shown_crashed_beside_what_happened(prefect_api: PrefectApi) -> None:
    engine = Engine(leads=frozenset({"first"}))
    run = engine.accept("first")
    engine.relay.start()
    flow = prefect_api.post("/flows/", {"name": "p"})
    document = {"flow_id": flow["id"], "name": "x", "idempotency_key": str(run.id), "tags": [f"shepherd:{run.id}"]}
    flow_run = prefect_api.post("/flow_runs/", {**document, "state": {"type": "RUNNING"}})
    left = {"flow_run_id": flow_run["id"], "name": "first", "task_key": "first-1", "dynamic_key": "x"}
    prefect_api.post("/task_runs/", {**left, "state": {"type": "RUNNING"}})
    engine.relay.fail(run.number, TaskError(code="x", message="given up"))

    asyncio.run(report_until(reporter(Calls(prefect_api)), is_done(run)))

    flow_run, task_runs = shown(prefect_api, run)
    assert flow_run["state_type"] == "FAILED"
    assert [each["state_type"] for each in task_runs] == ["CRASHED"]


def test_what_a_living_engine_has_made_is_not_shown_crashed(prefect_api: PrefectApi) -> None:
    flow = prefect_api.post("/flows/", {"name": "p"})
    flow_run = prefect_api.post("/flow_runs/", {"flow_id": flow["id"], "name": "x", "state": {"type": "RUNNING"}})
    made = [
        prefect_api.post("/task_runs/", {**left, "state": {"type": "RUNNING"}})
        for key in ("late", "own")
        for left in [{"flow_run_id": flow_run["id"], "name": key, "task_key": key, "dynamic_key": key}]
    ]

    asyncio.run(bury(Calls(prefect_api), UUID(flow_run["id"]), but={UUID(made[1]["id"])}))

    states = {each["name"]: each["state_type"] for each in prefect_api.task_runs(flow_run["id"])}
    assert states == {"late": "CRASHED", "own": "RUNNING"}
