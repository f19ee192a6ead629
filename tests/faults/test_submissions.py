"""Rows 29 to 31 and 33: what callers may submit, tasks that nobody serves, tasks of a millisecond."""

import gzip
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.support.faults.records import read_number
from tests.support.faults.system import FaultSystem, body
from tests.support.faults.thoroughness import is_full

_MEBIBYTE = 2**20
_DOCUMENT = json.dumps(body("step"))


def _with(context: str) -> bytes:
    """Return a pipeline with a context that only text can say."""
    return _DOCUMENT.replace('"context": {}', f'"context": {{"a": {context}}}').encode()


#: By what is wrong with it: a body, and the answers that are allowed.
_BODIES: dict[str, tuple[bytes, set[int]]] = {
    "0 B": (b"", {422}),
    "1 MiB and one": (_DOCUMENT.encode().ljust(_MEBIBYTE + 1), {413}),
    "17 MiB": (_DOCUMENT.encode().ljust(17 * _MEBIBYTE), {413}),
    "depth 10,000": (_with("[" * 10_000 + "]" * 10_000), {422}),
    "NaN": (_with("NaN"), {422}),
    "Infinity": (_with("-Infinity"), {422}),
    "half a surrogate pair": (_with('"\\ud800"'), {422}),
    "a key twice": (_with('1, "a": 2'), {422}),
    "1e400": (_with("1e400"), {422}),
    "5,000 digits": (_with("9" * 5_000), {422}),
    "no JSON": (b"\xff\xfe{", {422}),
    "gzip": (gzip.compress(b"0" * 10 * _MEBIBYTE), {415, 422}),
}


@pytest.mark.parametrize("what", list(_BODIES))
def test_a_body_that_is_no_pipeline_is_refused_with_the_reason(faulty: FaultSystem, what: str) -> None:
    content, allowed = _BODIES[what]
    before = _runs(faulty)
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if what == "gzip" else {})

    answer = faulty.system.api.post("/runs", content=content, headers=headers)

    assert answer.status_code in allowed, answer.text
    assert answer.json()["error"]["message"]
    assert _runs(faulty) == before
    faulty.injected.note(what, may_repeat=False)


def test_what_is_a_pipeline_is_kept_as_it_was_sent(faulty: FaultSystem) -> None:
    odd: dict[str, Any] = {"nul": "\0", "big": 10**400, "text": "\U0001d518\u2028", "float": 1e308, "deep": [[[[{}]]]]}
    run = faulty.post(("step", odd))
    just_fits = faulty.system.api.post(
        "/runs", content=_DOCUMENT.encode().ljust(_MEBIBYTE), headers={"Content-Type": "application/json"}
    )
    faulty.injected.note("NUL, huge integers, a body of exactly 1 MiB", may_repeat=False)

    faulty.wait_status(run, "succeeded")
    assert faulty.executions(run)[0].context == odd
    assert just_fits.status_code == httpx.codes.ACCEPTED
    faulty.conclude("29", "bodies over HTTP", injected=len(_BODIES) + 1)


def test_pipelines_of_every_size_have_their_answer(faulty: FaultSystem) -> None:
    answers = {count: _answer(faulty, [{"name": "step", "order_no": n} for n in range(count)]) for count in (0, 1, 201)}
    long = faulty.post(*["step"] * 200)
    twice = faulty.post(("step", {"n": 1}), ("step", {"n": 2}))
    outside = {
        name: _answer(faulty, [{"name": name, "order_no": 1}]) for name in ("9", "a-b", "é", "a" * 101, "", "a b")
    }
    for _ in range(12):
        faulty.injected.note("an odd pipeline", may_repeat=False)

    assert answers == {0: 422, 1: 202, 201: 422}
    assert set(outside.values()) == {422}
    for run in (long, twice):
        faulty.wait_status(run, "succeeded", timeout_s=120)
    faulty.conclude("30", "pipelines of 0, 1, 200 and 201 tasks, names twice and outside the grammar")


def test_a_task_that_nobody_serves_says_so_and_ends_when_it_has_waited_long_enough(faulty: FaultSystem) -> None:
    waits = faulty.post("served_by_nobody")
    limited = faulty.post("served_by_nobody", wait_timeout=1.5)
    faulty.injected.note("a task that nobody serves", may_repeat=False)

    error = faulty.wait_status(limited, "failed")["tasks"][0]["error"]
    reason = faulty.run(waits)["reason"]

    assert error["code"] == "wait_timeout"
    assert "served_by_nobody" in reason
    assert faulty.call("cancel", waits).is_success
    faulty.wait_status(waits, "cancelled")
    faulty.broker.ctl("delete_queue", "shepherd.task.served_by_nobody")
    faulty.conclude("31", "a task that nobody serves", more=f"reason: {reason}")


def test_between_a_reply_and_a_confirm_there_is_no_race(faulty: FaultSystem) -> None:
    count = 50 if is_full() else 5
    runs = [faulty.post(*["step"] * 100) for _ in range(count)]
    faulty.injected.note(f"{count * 100} tasks of a millisecond", may_repeat=False)

    faulty.conclude("33", f"{count * 100} tasks of a millisecond", timeout_s=600)

    assert {faulty.run(run)["status"] for run in runs} == {"succeeded"}
    executed = Counter(execution.task for execution in faulty.ledger.executions())
    assert [executed[task["id"]] for run in runs for task in faulty.run(run)["tasks"]] == [1] * count * 100


def _answer(faulty: FaultSystem, tasks: list[dict[str, Any]]) -> int:
    document = {"pipeline_name": "odd", "project": "plain", "transformers_list": tasks}
    return faulty.system.api.post("/runs", json=document).status_code


def _runs(faulty: FaultSystem) -> int:
    return read_number(faulty.database_url, "SELECT count(*) FROM pipelines_run")
