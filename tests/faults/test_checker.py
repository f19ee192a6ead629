"""The checker finds what is wrong: each test spoils one thing of a history in which all is well."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.faults.checker import Findings, check
from tests.support.faults.injected import Window
from tests.support.faults.ledger import Execution
from tests.support.faults.records import Records

_NOW = time.time()


def _history() -> Records:
    result = {"inline": {"n": 1, "attempt": 1}}
    runs = {1: {"number": 1, "id": "run", "status": "succeeded", "error": None, "data": {"inline": None}}}
    tasks: dict[int, dict[str, Any]] = {}
    attempts: dict[int, dict[str, Any]] = {}
    changes: list[tuple[int | None, str, str]] = [(None, "", "accepted"), (None, "accepted", "running")]
    for n in (1, 2):
        tasks[n] = {
            "number": n,
            "id": f"task-{n}",
            "run_id": 1,
            "position": n - 1,
            "name": "step",
            "status": "succeeded",
            "result": result,
            "error": None,
            "finished_at": _NOW + n,
        }
        attempts[n] = {
            "number": n,
            "task_id": n,
            "attempt_no": 1,
            "status": "succeeded",
            "context": {},
            "data": {"inline": None} if n == 1 else result,
        }
        changes += [(n, "pending", "published"), (n, "published", "succeeded")]
    changes.append((None, "running", "succeeded"))
    rows = {
        number: {"run_id": 1, "task_id": task, "from_status": before, "to_status": after, "reason": ""}
        for number, (task, before, after) in enumerate(changes, 1)
    }
    return Records(runs=runs, tasks=tasks, attempts=attempts, changes=rows, dead={})


def _execution(n: int, *, at: float | None = None, attempt: int = 1) -> Execution:
    data = None if n == 1 else {"n": 1, "attempt": 1}
    when = _NOW + n - 0.5 if at is None else at
    return Execution(at=when, task=f"task-{n}", attempt=attempt, name="step", worker=1, pid=2, context={}, data=data)


def _found(
    spoil: Callable[[Records], object] = lambda _: None, *more: Execution, windows: tuple[Window, ...] = ()
) -> Findings:
    records = _history()
    spoil(records)
    executions = [_execution(1), *more, _execution(2)]
    return check(records, executions, windows, accepted=["run"])


def test_nothing_is_found_where_all_is_well() -> None:
    assert _found().all() == []


def test_a_promised_run_that_is_nowhere_is_lost() -> None:
    found = check(_history(), [_execution(1), _execution(2)], (), accepted=["run", "another"])

    assert found.lost == ["run another was accepted, and is nowhere"]


def test_a_run_that_has_not_ended_is_lost() -> None:
    assert len(_found(lambda records: records.runs[1].update(status="running")).lost) == 1


def test_a_second_record_is_found() -> None:
    def spoil(records: Records) -> None:
        records.changes[99] = {**records.changes[4], "from_status": "succeeded"}

    assert _found(spoil).recorded_twice == ["task 1 was recorded as succeeded 2 times"]


def test_a_result_of_another_attempt_is_stale() -> None:
    def spoil(records: Records) -> None:
        records.tasks[2]["result"] = {"inline": {"n": 1, "attempt": 2}}

    assert len(_found(spoil).stale) == 1


def test_a_second_execution_needs_a_fault_between() -> None:
    again = _execution(1, at=_NOW + 0.8)
    long_ago = Window(kind="worker killed", began_at=_NOW - 100, ended_at=_NOW - 99)
    between = Window(kind="worker killed", began_at=_NOW + 0.6, ended_at=_NOW + 0.6)

    assert len(_found(lambda _: None, again).beyond) == 1
    assert len(_found(lambda _: None, again, windows=(long_ago,)).beyond) == 1
    assert _found(lambda _: None, again, windows=(between,)).all() == []
    assert len(_found(lambda _: None, again, windows=(replace(between, may_repeat=False),)).beyond) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda records: records.attempts[2].update(data={"inline": 5}), "was sent"),
        (lambda records: records.attempts[2].update(context={"a": 1}), "got the context"),
        (lambda records: records.attempts[2].update(status="running"), "which has ended"),
        (lambda records: records.tasks[1].update(finished_at=_NOW + 5), "before task 1 was recorded"),
        (lambda records: records.changes.pop(4), "its changes say"),
        (lambda records: records.tasks[2].update(status="failed"), "nothing says why"),
    ],
)
def test_what_else_is_wrong_is_found(spoil: Callable[[Records], object], said: str) -> None:
    def spoiled(records: Records) -> None:
        spoil(records)
        if said == "nothing says why":
            records.runs[1].update(status="failed")

    assert said in " ".join(_found(spoiled).others)


def test_a_success_that_nobody_executed_is_found() -> None:
    found = check(_history(), [_execution(1)], (), accepted=["run"])

    assert found.others == ["task 2 succeeded in attempt 1, which nobody executed"]
