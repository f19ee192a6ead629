"""Rows 19 and 20: the database restarts, is killed, is away, is locked, and chooses a victim of a deadlock."""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.faults.records import read_number
from tests.support.faults.system import FaultSystem, body, fault_system
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    with fault_system(tmp_path_factory.mktemp("database"), is_postgres=True) as ours:
        yield ours


@pytest.mark.parametrize("how", ["restarted", "killed -9", "away for a while"])
def test_the_system_recovers_from_a_database_that_goes_away(on_postgres: FaultSystem, how: str) -> None:
    ours, node = on_postgres, on_postgres.postgres
    assert node is not None
    ours.forget()
    runs = [ours.post(("step", {"n": n, "seconds": 0.2}), ("step", {"n": n})) for n in range(20)]
    ours.wait_executed(runs[2])

    with ours.injected.lasting(f"database {how}"):
        if how == "killed -9":
            node.kill()
        else:
            node.stop()
        if how == "away for a while":
            assert _status_of_a_submission(ours) == httpx.codes.SERVICE_UNAVAILABLE
            # Replies come in meanwhile, and must not be acked.
            wait_until(lambda: ours.queued().get("shepherd.replies", 0) > 0, timeout_s=30, what="replies that wait")
        node.start()
        _accept_again(ours)

    for run in runs:
        ours.wait_status(run, "succeeded", timeout_s=90)
    ours.conclude("19", f"PostgreSQL {how}", more=f"{len(runs)} runs live")


def test_a_table_that_is_locked_for_long_only_delays(on_postgres: FaultSystem) -> None:
    ours = on_postgres
    ours.forget()
    runs = [ours.post(("step", {"seconds": 0.5}), "step") for _ in range(5)]

    with ours.injected.lasting("a lock on the attempts"), _transaction(ours) as outside:
        outside.execute("LOCK TABLE pipelines_attempt IN ACCESS EXCLUSIVE MODE")
        _wait_for_a_waiting_query(ours)
        # A twentieth of two minutes.
        _let_pass(6.0)

    for run in runs:
        ours.wait_status(run, "succeeded")
    ours.conclude("19", "a lock held on a table")


def test_the_victim_of_a_deadlock_tries_again(on_postgres: FaultSystem) -> None:
    ours = on_postgres
    ours.forget()
    run = ours.post(("step", {"seconds": 1.5}))
    ours.wait_executed(run)

    with _transaction(ours) as outside:
        # The Task Publisher locks the attempt, then waits for its task, which is ours; we then want the attempt.
        outside.execute("SET LOCAL deadlock_timeout = '60s'")
        outside.execute("LOCK TABLE pipelines_task IN SHARE ROW EXCLUSIVE MODE")
        _wait_for_a_waiting_query(ours)
        ours.injected.note("deadlock")
        outside.execute("LOCK TABLE pipelines_attempt IN ACCESS EXCLUSIVE MODE")

    ours.wait_status(run, "succeeded")
    ours.conclude("19", "a deadlock of which the Task Publisher is the victim")


def test_submissions_wait_for_another_writer_of_sqlite(faulty: FaultSystem) -> None:
    with closing(sqlite3.connect(faulty.system.config.home / "shepherd.sqlite3", isolation_level=None)) as other:
        with faulty.injected.lasting("another writer", may_repeat=False):
            other.execute("BEGIN EXCLUSIVE")
            _let_pass(2.0)
            other.execute("COMMIT")
        run = faulty.post("step")
        with faulty.injected.lasting("another writer", may_repeat=False):
            other.execute("BEGIN IMMEDIATE")
            answer = _submission_while(faulty, other)

    assert answer.status_code == httpx.codes.ACCEPTED
    faulty.accepted.append(answer.json()["id"])
    faulty.wait_status(run, "succeeded")
    faulty.conclude("20", "SQLite locked by another writer")


def test_a_second_task_publisher_on_sqlite_says_why_it_stops(faulty: FaultSystem) -> None:
    program = faulty.system.program("task-publisher")

    second = subprocess.run(
        program.command,
        cwd=faulty.system.config.root,
        env={**faulty.system.environ, **program.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    faulty.injected.note("a second Task Publisher", may_repeat=False)
    assert second.returncode != 0
    assert str(faulty.system.pid("task-publisher")) in second.stderr
    assert "PostgreSQL" in second.stderr
    faulty.wait_status(faulty.post("step"), "succeeded")
    faulty.conclude("20", "a second Task Publisher on SQLite")


def _submission_while(ours: FaultSystem, other: sqlite3.Connection) -> httpx.Response:
    """Submit while another writer has the database, which lets go of it after a moment."""
    with ThreadPoolExecutor(max_workers=1) as caller:
        call = caller.submit(ours.system.api.post, "/runs", json=body("step"))
        _let_pass(2.0)
        assert not call.done()
        other.execute("COMMIT")
        return call.result(timeout=30)


def _status_of_a_submission(ours: FaultSystem) -> int:
    return ours.system.api.post("/runs", json=body("step")).status_code


def _accept_again(ours: FaultSystem) -> None:
    def accepted() -> dict[str, Any] | None:
        answer = ours.system.api.post("/runs", json=body("step"))
        return answer.json() if answer.status_code == httpx.codes.ACCEPTED else None

    run = wait_until(accepted, timeout_s=30, what="a submission accepted again")
    assert run is not None
    ours.accepted.append(run["id"])


@contextmanager
def _transaction(ours: FaultSystem) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(ours.database_url) as connection, connection.transaction():
        yield connection


def _wait_for_a_waiting_query(ours: FaultSystem) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    wait_until(lambda: read_number(ours.database_url, waiting), timeout_s=30, what="somebody who waits for the lock")


def _let_pass(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, timeout_s=seconds + 5, what="time passed")
