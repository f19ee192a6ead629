"""Cancel and resume while others move the same run: exactly one outcome, and nobody waits for ever."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from shepherd.errors import ConflictError
from shepherd.pipelines import recording, services, sql, starting
from shepherd.pipelines.models import Attempt, Run, StatusChange, Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline
from tests.support.engine import Engine, finished, statuses
from tests.support.waiting import wait_until
from tests.support.web import NOW, CountingBell

ENDS = {"succeeded", "failed", "cancelled"}
ROUNDS = 12


@pytest.fixture
def engine(asha: User) -> Engine:
    return Engine()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Return what each call returned or raised, all begun at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        barrier.wait(10)
        try:
            answers[index] = call()
        except Exception as error:  # noqa: BLE001  # To be looked at by the test.
            answers[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return answers


def ends(run: Run) -> list[str]:
    """Return every terminal status that the run ever had, in order."""
    rows = StatusChange.objects.filter(run=run, task=None, to_status__in=ENDS).order_by("number")
    return list(rows.values_list("to_status", flat=True))


def cancel(run: Run, by: User) -> Callable[[], None]:
    return lambda: services.cancel(run.number, by=by, now=NOW)


@pytest.mark.parametrize("error", [None, TaskError(code="x", message="x")])
def test_a_cancel_that_races_with_the_last_reply_leaves_one_end(
    engine: Engine, asha: User, error: TaskError | None
) -> None:
    for _ in range(ROUNDS):
        run = engine.accept("a")
        engine.relay.start()
        reply = finished(engine.take("a").token, Inline(1), error=error)

        answers = at_once(cancel(run, asha), lambda reply=reply: recording.record([reply], now=NOW))  # type: ignore[misc]

        [end] = ends(run)
        assert statuses(run) == [end, end]
        assert Attempt.objects.get(task__run=run).status == ("withdrawn" if end == "cancelled" else end)
        assert (answers[0] is None) == (end == "cancelled")
        assert answers[0] is None or isinstance(answers[0], ConflictError)


def test_a_cancel_that_races_with_a_reply_in_between_leaves_nothing_under_way(engine: Engine, asha: User) -> None:
    for _ in range(ROUNDS):
        run = engine.accept("a", "b")
        engine.relay.start()
        reply = finished(engine.take("a").token, Inline(1))

        answers = at_once(cancel(run, asha), lambda reply=reply: recording.record([reply], now=NOW))  # type: ignore[misc]

        assert answers[0] is None
        assert ends(run) == ["cancelled"]
        assert statuses(run) in (["cancelled", "cancelled", "pending"], ["cancelled", "succeeded", "cancelled"])
        assert not Attempt.objects.filter(task__run=run, status__in=["published", "running"])


def test_a_cancel_that_races_with_the_start_leaves_nothing_under_way(engine: Engine, asha: User) -> None:
    for _ in range(ROUNDS):
        run = engine.accept("a")

        answers = at_once(cancel(run, asha), engine.relay.start)

        assert answers[0] is None
        assert statuses(run) == ["cancelled", "cancelled"]
        assert not Attempt.objects.filter(task__run=run, status__in=["published", "running"])


def test_a_cancel_that_races_with_fetched_data_leaves_nothing_under_way(engine: Engine, asha: User) -> None:
    for _ in range(ROUNDS):
        run = engine.accept("a", data_url="https://example.org/a.csv")
        engine.relay.start()

        answers = at_once(
            cancel(run, asha),
            lambda number=run.number: starting.set_data(number, Inline(1), now=NOW),  # type: ignore[misc]
        )

        assert answers[0] is None
        assert statuses(run) == ["cancelled", "cancelled"]
        assert not Attempt.objects.filter(task__run=run, status__in=["published", "running"])


def test_cancels_at_once_write_one_end(engine: Engine, asha: User) -> None:
    run = engine.accept("a")
    engine.relay.start()

    answers = at_once(*[cancel(run, asha)] * 4)

    assert answers == [None] * 4
    assert ends(run) == ["cancelled"]
    assert StatusChange.objects.filter(run=run, to_status="cancelled").count() == 2


def test_resumes_at_once_are_one(engine: Engine, asha: User) -> None:
    run = engine.accept("a")
    engine.relay.start()
    engine.finish(engine.take("a").token, error=TaskError(code="x", message="x"))

    answers = at_once(*[lambda: services.resume(run.number, contexts={}, by=asha, now=NOW)] * 4)

    assert answers == [None] * 4
    assert StatusChange.objects.filter(run=run, task=None, from_status="failed").count() == 1
    run.refresh_from_db()
    assert (run.status, run.owner_epoch) == ("running", 1)


def test_of_two_corrections_at_once_one_is_taken_and_the_other_told(engine: Engine, asha: User) -> None:
    run = engine.accept("a")
    engine.relay.start()
    engine.finish(engine.take("a").token, error=TaskError(code="x", message="x"))

    answers = at_once(
        *[lambda n=n: services.resume(run.number, contexts={"a": {"n": n}}, by=asha, now=NOW) for n in range(2)]
    )

    [refused] = [n for n in range(2) if isinstance(answers[n], ConflictError)]
    assert answers[1 - refused] is None
    assert Task.objects.get(run=run).corrected_context == {"n": 1 - refused}


def test_a_cancel_waits_for_whoever_has_the_run_in_hand(postgres_asha: User) -> None:
    engine = Engine()
    run = engine.accept("a")
    engine.relay.start()
    reply = finished(engine.take("a").token, Inline(1))
    answers: list[Any] = []

    with transaction.atomic():
        recording.record([reply], now=NOW)
        thread = threading.Thread(target=lambda: answers.extend(at_once(cancel(run, postgres_asha))))
        thread.start()
        wait_until(_is_somebody_waiting, timeout_s=10, what="the cancel at the lock")
    thread.join(10)

    assert isinstance(answers[0], ConflictError)
    assert ends(run) == ["succeeded"]


def _is_somebody_waiting() -> bool:
    return bool(sql.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))


@pytest.fixture
def postgres_asha(postgres_database: str, projects_folder: Path, bell: CountingBell) -> User:
    return User.objects.create_user("asha")
