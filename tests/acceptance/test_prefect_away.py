"""Prefect follows: a run goes its way whether or not Prefect's server is there, and says so."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from shepherd.site.local import flights
from shepherd.site.local.pipeline import body as five_tasks
from tests.acceptance.trial import Trial, trial
from tests.support.folders import TEST_FOLDER
from tests.support.waiting import wait_until

#: What a run may take longer than without a fault, in seconds.
_ALLOWED_S = 30.0
#: What the five tasks, and a publisher that waits for 5 s, take without a fault, at the most.
_PLAIN_S = 10.0
_NOTE = "Prefect's API has not answered for 10 s; the run goes on without it"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("away"), but=("prefect",)) as running:
        yield running


@pytest.fixture
def running(shared: Trial) -> Trial:
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def document() -> Iterator[dict[str, Any]]:
    with flights.serving(TEST_FOLDER / "flights") as url:
        yield {**five_tasks(url), "project": "trial"}


def test_runs_succeed_while_prefects_server_is_away_before_the_start(running: Trial, document: dict[str, Any]) -> None:
    if running.system.is_running("prefect"):
        running.system.stop("prefect")
    running.system.stop("task-publisher")

    running.system.start("task-publisher")
    run, led = running.system.post(document), running.post(("nap", {}), ("echo", {}), project="led")

    assert_succeeds(running, run, led)
    assert wait_note(running, run) == wait_note(running, led) == _NOTE
    running.system.start("prefect")
    assert_shown(running, run, led)
    assert running.executed().count("nap") == 1


def test_runs_succeed_while_prefects_server_is_killed_in_the_middle(running: Trial, document: dict[str, Any]) -> None:
    start_prefect(running)
    slow = ("nap", {"seconds": 2})
    interrupted, led = running.post(slow, slow), running.post(("nap", {}), project="led")
    wait_until(running.executed, timeout_s=30, what="the first task begun")

    running.system.kill("prefect")
    run = running.system.post(document)

    assert_succeeds(running, interrupted, led, run)
    running.system.start("prefect")
    assert_shown(running, interrupted, led, run)
    assert running.executed().count("nap") == 3


def test_runs_succeed_while_prefects_server_stands_still(running: Trial, document: dict[str, Any]) -> None:
    start_prefect(running)

    running.system.send("prefect", signal.SIGSTOP)
    run, led = running.system.post(document), running.post(("nap", {}), project="led")

    assert_succeeds(running, run, led)
    running.system.send("prefect", signal.SIGCONT)
    assert_shown(running, run, led)
    assert running.executed().count("nap") == 1


def start_prefect(running: Trial) -> None:
    """Return when Prefect follows again."""
    running.system.start("prefect")
    running.system.wait_ready()
    running.in_prefect(running.system.wait_ended(running.post(("nap", {}))["id"]), timeout_s=90)
    running.forget()


def assert_succeeds(running: Trial, *runs: dict[str, Any]) -> None:
    for run in runs:
        ended = running.system.wait_ended(run["id"], timeout_s=_PLAIN_S + _ALLOWED_S)
        assert ended["status"] == "succeeded", ended
        assert ended["duration_s"] < _PLAIN_S + _ALLOWED_S


def assert_shown(running: Trial, *runs: dict[str, Any]) -> None:
    """Prefect shows them all once it is back."""
    for run in runs:
        assert running.in_prefect(run, timeout_s=120)["state_type"] == "COMPLETED"


def wait_note(running: Trial, run: dict[str, Any]) -> str:
    note: str = wait_until(
        lambda: running.system.get(f"/runs/{run['id']}")["prefect"]["note"], timeout_s=15, what="a note about Prefect"
    )
    return note
