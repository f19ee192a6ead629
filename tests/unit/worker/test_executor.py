import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shepherd.errors import NotFoundError, ProtocolError, StoreUnavailableError, TaskFailedError
from shepherd.store.memory import MemoryStore
from shepherd.wire.envelope import Finished, TaskEnvelope, parse_reply
from shepherd.wire.value import NOTHING, ClaimCheck, Inline, Value
from shepherd.worker import current_task, executor
from shepherd.worker.executor import Executor
from shepherd.worker.task import task_of


def _body(name: str = "work", *, data: Value = NOTHING, run_id: str = "") -> bytes:
    return TaskEnvelope(
        token="t",
        attempt=2,
        task_id="task-id",
        name=name,
        order_no=3,
        run_id=run_id or str(uuid.UUID(int=1)),
        run_number=1,
        pipeline_name="p",
        project="x",
        context={"a": 1},
        data=data,
        published_at=datetime.now(UTC),
    ).to_bytes()


@pytest.fixture
def execute(tmp_path: Path) -> Any:
    def call(function: Any, body: bytes | None = None) -> Finished:
        tasks = {"work": task_of(function, name="work")}
        executor = Executor(tasks, store=MemoryStore(), worker="w", scratch=tmp_path)
        answer = executor.execute(body or _body())
        assert answer.endswith(b'"log_lines":0}')
        reply = parse_reply(answer)
        assert isinstance(reply, Finished)
        assert not list(tmp_path.iterdir()), "an attempt's files are removed with it"
        return reply

    return call


def test_a_result_is_replied(execute: Any) -> None:
    reply = execute(lambda context: [context["a"], 2])

    assert (reply.token, reply.worker, reply.result, reply.error) == ("t", "w", Inline([1, 2]), None)


def test_what_the_sdk_refuses_shows_none_of_its_own_code(execute: Any) -> None:
    body = TaskEnvelope.parse(_body())

    reply = execute(lambda _: 1, replace(body, context={"deep": [{"key": {"$secret": "NONE"}}]}).to_bytes())

    assert reply.error.code == "secret_missing"
    assert "there is no variable SHEPHERD_TASK_SECRET_NONE, and" in reply.error.message
    assert "File" not in reply.error.traceback


class _Panic(BaseException):
    """As polars raises it."""


def test_a_card_that_cannot_be_made_costs_no_result(execute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: Any) -> None:
        raise _Panic

    monkeypatch.setattr(executor, "card_of", panic)

    reply = execute(lambda _: b"content")

    assert (reply.error, reply.card) == (None, None)
    assert isinstance(reply.result, ClaimCheck)


def test_a_returned_text_that_names_a_file_stays_a_text_and_says_so(
    execute: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reply = execute(lambda _: __file__)

    assert reply.result == Inline(__file__)
    assert "return pathlib.Path" in caplog.text


def test_a_task_knows_itself_only_while_it_runs(execute: Any) -> None:
    reply = execute(lambda _: [current_task().id, current_task().attempt, current_task().name])

    assert reply.result == Inline(["task-id", 2, "work"])
    with pytest.raises(NotFoundError):
        current_task()


def test_a_task_can_ask_whether_its_run_is_a_sample(execute: Any) -> None:
    def ask(_: Any) -> bool:
        return current_task().is_sample

    sample = execute(ask, replace(TaskEnvelope.parse(_body()), sample_rows=10).to_bytes())

    assert (sample.result, execute(ask).result) == (Inline(True), Inline(False))


def _raises(error: BaseException) -> Any:
    def failing(context: Any) -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code", "is_retryable"),
    [
        (ValueError("v"), "value_error", False),
        (TaskFailedError("own_code", "m", is_retryable=True), "own_code", True),
        (StoreUnavailableError("away"), "store_unavailable", True),
        (SystemExit(1), "exited", False),
        (BaseException("b"), "exited", False),
    ],
)
def test_an_exception_is_replied(execute: Any, error: BaseException, code: str, is_retryable: bool) -> None:
    reply = execute(_raises(error))

    assert (reply.error.code, reply.error.is_retryable) == (code, is_retryable)
    assert "in failing" in reply.error.traceback
    assert 'shepherd/worker/executor.py"' not in reply.error.traceback


def test_a_name_that_is_not_served_is_replied(execute: Any) -> None:
    reply = execute(lambda _: None, _body("other"))

    assert reply.error.code == "unknown_task"


def test_what_is_no_envelope_is_raised(execute: Any) -> None:
    with pytest.raises(ProtocolError):
        execute(lambda _: None, b"{}")


def test_a_run_id_that_is_no_part_of_a_key_cannot_lead_out(execute: Any) -> None:
    reply = execute(lambda _: b"x", _body(run_id="../../etc"))

    assert reply.error.code == "invalid_input"


def test_large_results_are_left_in_the_store_under_a_key_of_their_own(execute: Any) -> None:
    first, second = (execute(lambda _: "x" * 70_000).result for _ in range(2))

    assert isinstance(first, ClaimCheck)
    assert f"/runs/{uuid.UUID(int=1)}/3-work-2/" in first.uri
    assert first.size == 70_000
    assert first.uri != second.uri


@pytest.mark.parametrize(
    "returned", [{1, 2}, datetime(2026, 1, 1, tzinfo=UTC), {"u": uuid.UUID(int=1)}, {3: "int key"}, (1, 2)]
)
def test_what_has_an_obvious_form_in_json_gets_it(execute: Any, returned: Any) -> None:
    assert execute(lambda _: returned).error is None


@pytest.mark.parametrize("returned", [object(), float("inf"), "\ud800", {"k": "\ud800"}, Path("/"), lambda: 0])
def test_what_cannot_travel_is_replied_as_an_invalid_result(execute: Any, returned: Any) -> None:
    assert execute(lambda _: returned).error.code == "invalid_result"


def test_an_object_that_contains_itself_cannot_travel(execute: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)

    assert execute(lambda _: loop).error.code == "invalid_result"


def _wants_text(context: Any, data: str) -> str:
    return data


def _wants_maybe(context: Any, data: bytes | None) -> str:
    return repr(data)


def _wants_numbers(context: Any, data: list[int]) -> int:
    return sum(data)


@pytest.mark.parametrize(
    ("function", "data", "wanted"),
    [
        (_wants_text, Inline("ä"), "ä"),
        (_wants_maybe, NOTHING, "None"),
        (_wants_maybe, Inline("x"), "b'x'"),
        (_wants_numbers, Inline([1, 2]), 3),
    ],
)
def test_data_becomes_what_is_declared(execute: Any, function: Any, data: Value, wanted: Any) -> None:
    assert execute(function, _body(data=data)).result == Inline(wanted)


@pytest.mark.parametrize(
    ("function", "data"), [(_wants_text, NOTHING), (_wants_text, Inline([1])), (_wants_numbers, Inline(["x"]))]
)
def test_data_that_cannot_become_it_is_replied(execute: Any, function: Any, data: Value) -> None:
    assert execute(function, _body(data=data)).error.code == "invalid_data"
