"""What a project's own flow.py may do to the Task Publisher: fail its runs, with a reason, and nothing else."""

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections

from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.pipelines.ownership import Owner
from shepherd.publisher.driver import Driver, DriverConfig, Work
from shepherd.publisher.outcomes import Database, Outcomes
from shepherd.publisher.plain import call_publisher
from shepherd.publisher.publishers import Publishers
from shepherd.publisher.session import Services
from shepherd.store.memory import MemoryStore
from shepherd.wire.value import Inline
from tests.support.engine import PROJECT, Engine, statuses
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.usefixtures("sqlite_database"),
    # As in production a loop ends in the middle of what it drives, and whatever that held goes with it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LEADS = frozenset({"scrape"})
PUBLISHER = """
import asyncio, sys
from prefect import task
from shepherd.publisher import publish_task_and_process_result

@task
def scrape(context, pipeline, task_obj):
    if context:
        {fault}
    pipeline.data, _ = publish_task_and_process_result(task_obj, context)
"""
#: In the loop's own terms: an exception that is no `Exception`, out of a task that a publisher began.
LEAVES = """
import asyncio, sys
from prefect import task
from shepherd.publisher import apublish_task_and_process_result

async def leave():
    sys.exit("done here")

@task
async def scrape(context, pipeline, task_obj):
    await asyncio.wait([asyncio.create_task(leave())])
    pipeline.data, _ = await apublish_task_and_process_result(task_obj, context)
"""


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    # Prefect keeps its own things there, and makes no folder above it.
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    file = tmp_path / PROJECT.replace("-", "_") / "flow.py"
    file.parent.mkdir()
    return file


def drive(engine: Engine, flow_file: Path, steps: Callable[[], None], *, is_prefect_on: bool = False) -> None:
    """Drive the engine's runs, with the publishers of this file, for as long as `steps` take."""
    look_every = timedelta(seconds=0.05)
    database = Database()
    config = DriverConfig(is_prefect_on=is_prefect_on, slots=1, patience=look_every, look_every=look_every)

    def stepping() -> None:
        try:
            steps()
        finally:
            connections.close_all()

    async def while_driven() -> None:
        services = Services(
            relay=engine.relay,
            outcomes=Outcomes(database, look_every_s=0.05),
            database=database,
            store=MemoryStore(),
            call_publisher=call_publisher,
        )
        work = Work()
        owner = Owner(name="p", lease=timedelta(seconds=30), is_alone=True)
        work.open(services, Publishers(flow_file.parent.parent), config, owner=owner)
        driving = asyncio.ensure_future(work.run())
        await asyncio.to_thread(stepping)
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)

    try:
        asyncio.run(while_driven())
    finally:
        # A call goes on when nobody awaits it any more, and its connection is about to be closed.
        database.close()


def until(run: Run, expected: list[str]) -> None:
    wait_until(lambda: statuses(run) == expected, timeout_s=20, what=f"run {run.number} is {expected}")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("sys.exit('no key')", "SystemExit: no key"),
        ("next(iter(()))", "StopIteration"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("context['x'] = 'x' * 17 * 1024 * 1024", "at most 16777216 travel"),
    ],
)
def test_a_publisher_that_goes_wrong_in_any_way_fails_its_own_run_only(fault: str, said: str, flow_file: Path) -> None:
    flow_file.write_text(PUBLISHER.format(fault=fault))
    engine = Engine(leads=LEADS)
    wrong = engine.accept("scrape", contexts={"scrape": {"x": "y"}})
    right = engine.accept("scrape")
    engine.relay.start()

    def steps() -> None:
        until(wrong, ["failed", "failed"])
        until(right, ["running", "published"])
        engine.finish(engine.take("scrape").token)
        until(right, ["succeeded", "succeeded"])

    drive(engine, flow_file, steps)

    error = Task.objects.get(run=wrong).error
    assert error is not None
    assert error["code"] == "publisher_failed"
    assert said in error["message"]
    assert [attempt.task.run_id for attempt in Attempt.objects.select_related("task")] == [right.number]


def test_what_ends_the_loop_of_all_flows_ends_one_task_only(flow_file: Path) -> None:
    flow_file.write_text(LEAVES)
    engine = Engine(leads=LEADS)
    run = engine.accept("scrape")
    engine.relay.start()
    driver = Driver(
        DriverConfig(is_prefect_on=False, slots=1, look_every=timedelta(seconds=0.05)),
        engine.relay,
        Publishers(flow_file.parent.parent),
        MemoryStore(),
        owner=Owner(name="p", lease=timedelta(seconds=30), is_alone=True),
    )

    driver.start()
    until(run, ["running", "published"])
    engine.finish(engine.take("scrape").token)
    until(run, ["succeeded", "succeeded"])
    driver.stop()

    loop = driver._loop
    assert loop is not None
    for left in (tasks := asyncio.all_tasks(loop)):
        left.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def test_a_run_with_a_publisher_goes_on_where_prefect_cannot_even_be_imported(
    flow_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_file.write_text(PUBLISHER.format(fault="pass"))
    monkeypatch.setitem(sys.modules, "shepherd.publisher.flow", None)
    engine = Engine(leads=LEADS)
    run = engine.accept("scrape")
    engine.relay.start()

    def steps() -> None:
        until(run, ["running", "published"])
        engine.finish(engine.take("scrape").token)
        until(run, ["succeeded", "succeeded"])

    drive(engine, flow_file, steps, is_prefect_on=True)

    run.refresh_from_db()
    assert run.prefect_note.startswith("Prefect can't be used, ModuleNotFoundError: ")


@pytest.mark.parametrize("fault", ["import sys; sys.exit('no key')", "raise KeyError('no key')"])
def test_a_flow_that_cannot_be_imported_fails_its_runs_with_the_reason(fault: str, flow_file: Path) -> None:
    flow_file.write_text(fault)
    engine = Engine(leads=LEADS)
    run = engine.accept("scrape")

    assert Publishers(flow_file.parent.parent).names(PROJECT, wait_s=20) is None
    engine.relay.start()
    drive(engine, flow_file, lambda: until(run, ["failed", "pending"]))

    run.refresh_from_db()
    assert run.error is not None
    assert run.error["code"] == "flow_broken"
    assert "no key" in run.error["traceback"]


def test_a_flow_that_broke_meanwhile_ends_nothing_that_a_worker_has(flow_file: Path) -> None:
    flow_file.write_text("raise KeyError('no key')")
    engine = Engine(leads=LEADS)
    run = engine.accept("scrape", "clean")
    engine.relay.start()
    engine.relay.publish(Task.objects.get(name="scrape").number)
    token = engine.take("scrape").token
    engine.claim(token)

    def steps() -> None:
        wait_until(lambda: Run.objects.get().owner_epoch > 0, timeout_s=20, what="the run is taken up")
        assert statuses(run) == ["running", "running", "pending"]
        engine.finish(token, Inline("rows"))
        until(run, ["failed", "succeeded", "pending"])

    drive(engine, flow_file, steps)


def test_a_publisher_is_called_with_the_results_that_its_context_refers_to(flow_file: Path) -> None:
    flow_file.write_text(PUBLISHER.format(fault="context['again'] = [context['rows'] + 1, {'$result': 'count'}]"))
    engine = Engine(leads=LEADS)
    refers = {"rows": {"$result": "count", "pointer": "/n"}}
    run = engine.accept("count", "scrape", "clean", contexts={"scrape": refers, "clean": {"n": {"$result": "scrape"}}})
    wrong = engine.accept("count", "scrape", contexts={"scrape": refers})
    engine.relay.start()

    def steps() -> None:
        engine.finish(engine.take("count").token, Inline({"n": 1}))
        engine.finish(engine.take("count").token, Inline({}))
        until(wrong, ["failed", "succeeded", "failed"])
        until(run, ["running", "succeeded", "published", "pending"])
        scrape = engine.take("scrape")
        assert scrape.context == {"rows": 1, "again": [2, {"n": 1}]}
        engine.finish(scrape.token, Inline("done"))
        until(run, ["running", "succeeded", "succeeded", "published"])
        assert engine.take("clean").context == {"n": "done"}

    drive(engine, flow_file, steps)

    error = Task.objects.get(run=wrong, name="scrape").error
    assert error is not None
    assert (error["code"], "has no 'n'" in error["message"]) == ("invalid_reference", True)
