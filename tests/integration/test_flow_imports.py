"""A project's flow.py that takes its time, or never ends, when it is imported: its own runs wait, and no others."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings

from shepherd.pipelines.models import Run, Task
from shepherd.pipelines.waiting import waiting_reasons
from shepherd.publisher.publishers import Publishers
from tests.support.engine import Engine, statuses
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("sqlite_database")

HANGS = """
from pathlib import Path
from time import sleep

while not Path({gate!r}).exists():
    sleep(0.02)
"""
MENDED = """
from prefect import task

@task
def scrape(context, pipeline, task_obj):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    for name in ("slow", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flow.py").write_text("")
    with override_settings(SHEPHERD=replace(settings.SHEPHERD, projects_folder=tmp_path)):
        yield tmp_path


def started(engine: Engine, run: Run) -> Callable[[], bool]:
    """Return what sweeps, and says whether the run is going."""

    def look() -> bool:
        engine.relay.start()
        return statuses(run)[0] == "running"

    return look


def reason(run: Run) -> str:
    run.refresh_from_db()
    return waiting_reasons([run], now=datetime.now(UTC)).get(run.number, "")


def test_a_flow_that_hangs_at_its_import_keeps_only_its_own_runs_waiting_until_it_is_mended(folder: Path) -> None:
    gate = folder / "gate"
    (folder / "slow" / "flow.py").write_text(HANGS.format(gate=str(gate)))
    engine = Engine(leads=Publishers(folder, patience_s=0).names)
    slow = engine.accept("scrape", project="slow")
    other = engine.accept("scrape", project="other")

    try:
        wait_until(started(engine, other), timeout_s=30, what="the other project's run going")
        assert statuses(slow) == ["accepted", "pending"]
        assert reason(slow) == (
            "The flow.py of project 'slow' takes long to import: what needs its publishers goes on when that ends, "
            "or once the file has been mended."
        )

        (folder / "slow" / "flow.py").write_text(MENDED)
        wait_until(started(engine, slow), timeout_s=30, what="the run going by the mended flow")
        assert Task.objects.get(run=slow).is_led
        assert "flow.py" not in reason(slow)
    finally:
        gate.touch()


def test_a_flow_that_takes_its_time_is_waited_for_and_tells_when_it_is_there(folder: Path) -> None:
    gate, told = folder / "gate", list[str]()
    (folder / "slow" / "flow.py").write_text(HANGS.format(gate=str(gate)) + MENDED)
    engine = Engine(leads=Publishers(folder, on_imported=lambda: told.append("imported")).names)
    run = engine.accept("scrape", project="slow")

    engine.relay.start()
    assert statuses(run) == ["accepted", "pending"]
    assert reason(run) == "Waiting for the Task Publisher to start it."
    gate.touch()
    wait_until(lambda: told, timeout_s=30, what="the flow imported")
    engine.relay.start()

    assert statuses(run) == ["running", "pending"]
    assert Task.objects.get(run=run).is_led


def test_runs_of_a_project_that_two_folders_are_wait_and_say_so_and_others_go_on(folder: Path) -> None:
    (folder / "slow_one").mkdir()
    (folder / "slow_one" / "flow.py").write_text(MENDED)
    engine = Engine(leads=Publishers(folder).names)
    doubled, other = engine.accept("scrape", project="slow-one"), engine.accept("scrape", project="other")
    shutil.copytree(folder / "slow_one", folder / "slow-one")

    wait_until(started(engine, other), timeout_s=30, what="the other project's run going")
    assert statuses(doubled) == ["accepted", "pending"]
    assert reason(doubled) == (
        f"Project 'slow-one' can't be used: {folder / 'slow-one'} and {folder / 'slow_one'} are both the project "
        "'slow-one'."
    )

    shutil.rmtree(folder / "slow-one")
    wait_until(started(engine, doubled), timeout_s=30, what="the run going by the flow that is left")
    assert Task.objects.get(run=doubled).is_led
