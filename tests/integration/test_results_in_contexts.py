"""`{"$result": …}` in contexts: checked when submitted, filled in and checked when published."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shepherd.pipelines import catalogue, handles
from shepherd.pipelines.again import append_tasks
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import ClaimCheck, Inline
from tests.support.engine import Engine, statuses
from tests.support.web import Api, an_offer, faults_of, manifest, pipeline

DATES = {"$result": "bhuvan_get_dates", "pointer": "/dates/0"}
CLAIM = ClaimCheck(uri="file:///s/a.csv", sha256="0" * 64, size=3, media_type="text/csv")


def announce(name: str, schema: dict[str, Any], engine: Engine | None = None) -> None:
    at = {} if engine is None else {"at": engine.clock()}
    said = manifest(an_offer(name, schema), **at)
    catalogue.announce(said, now=said.at)


def _submitted(api: Api, *contexts: dict[str, Any]) -> Any:
    names = ["bhuvan_get_dates", "wms", "upload"]
    document = pipeline(*names[: len(contexts)])
    for task, context in zip(document["transformers_list"], contexts, strict=True):
        task["context"] = context
    return api.post(document)


@pytest.mark.usefixtures("database")
def test_a_result_is_filled_in_before_publishing_and_kept_with_the_attempt() -> None:
    engine = Engine()
    run = engine.accept("dates", "wms", contexts={"wms": {"date": {"$result": 1, "pointer": "/dates/0"}, "n": 1}})
    engine.relay.start()

    engine.finish(engine.take("dates").token, Inline({"dates": ["2023-05-01"]}))
    sent = engine.take("wms")

    assert sent.context == {"date": "2023-05-01", "n": 1}
    task = Task.objects.get(run=run, position=1)
    assert task.context == {"date": {"$result": 1, "pointer": "/dates/0"}, "n": 1}
    assert Attempt.objects.get(task=task).context == {"date": "2023-05-01", "n": 1}


@pytest.mark.usefixtures("database")
def test_results_of_several_earlier_tasks_and_runs_are_told_apart() -> None:
    engine = Engine()
    context = {"first": {"$result": "a"}, "both": [{"$result": "b"}, {"$result": 2, "pointer": "/n"}]}
    for _ in range(2):
        engine.accept("a", "b", "c", contexts={"c": context})
    engine.relay.start()
    for number in (1, 2):
        engine.finish(engine.take("a").token, Inline(f"of {number}"))
        engine.finish(engine.take("b").token, Inline({"n": number}))

    assert [engine.take("c").context for _ in range(2)] == [
        {"first": f"of {number}", "both": [{"n": number}, number]} for number in (1, 2)
    ]


@pytest.mark.usefixtures("database")
def test_a_result_is_never_taken_for_a_placeholder_itself() -> None:
    engine = Engine()
    engine.accept("a", "b", contexts={"b": {"rows": {"$result": "a"}}})
    engine.relay.start()

    engine.finish(engine.take("a").token, Inline([{"$secret": "AWS_KEY"}]))

    assert engine.take("b").context == {"rows": {"$literal": [{"$secret": "AWS_KEY"}]}}


#: Contexts of the second task, what the first returns, and the code and a part of the message of the second's failure.
_UNFIT: list[tuple[dict[str, Any], Any, str, str]] = [
    ({"a": {"$result": 1}}, CLAIM, "invalid_reference", "text/csv in the store"),
    ({"a": {"$result": 1, "pointer": "/b"}}, Inline({"c": 1}), "invalid_reference", "has no 'b'"),
    ({"$result": 1}, Inline("text"), "invalid_reference", "must be an object"),
    ({"a": [{"$result": 1}] * 70}, Inline("x" * 62_000), "invalid_reference", "more than"),
    ({"n": {"$result": 1}}, Inline("text"), "invalid_context", "context.n: must be of type integer"),
]


@pytest.mark.usefixtures("database")
def test_what_cannot_be_filled_in_fails_the_task_before_anything_is_published() -> None:
    engine = Engine()
    announce("b", {"type": "object", "properties": {"n": {"type": "integer"}}}, engine)

    for context, result, code, told in _UNFIT:
        run = engine.accept("a", "b", "c", contexts={"b": context})
        engine.relay.start()
        engine.finish(engine.take("a").token, result)

        assert statuses(run) == ["failed", "succeeded", "failed", "pending"]
        task = Task.objects.get(run=run, position=1)
        assert (task.error["code"], task.attempts.count()) == (code, 0)
        assert told in task.error["message"]
        assert engine.heard.ended[-1] == task.number

    assert {envelope.name for envelope in engine.published()} == {"a"}


@pytest.mark.usefixtures("database")
def test_one_that_cannot_be_filled_in_stops_no_other() -> None:
    engine = Engine()
    bad = engine.accept("a", "b", contexts={"b": {"x": {"$result": "a", "pointer": "/none"}}})
    good = engine.accept("a", "b", contexts={"b": {"x": {"$result": "a", "pointer": "/n"}}})
    engine.relay.start()
    for _ in range(2):
        engine.say_finished(engine.take("a").token, Inline({"n": 1}))
    engine.take_replies()

    assert statuses(bad)[0] == "failed"
    assert statuses(good) == ["running", "succeeded", "published"]
    assert engine.take("b").context == {"x": 1}


@pytest.mark.usefixtures("database")
def test_only_tasks_with_references_cost_a_query() -> None:
    engine = Engine()
    asked = []
    for context in ({"x": "$result"}, {"x": {"$result": "a"}}):
        engine.accept("a", "b", contexts={"b": context})
        engine.relay.start()
        token = engine.take("a").token
        with CaptureQueriesContext(connection) as queries:
            engine.finish(token, Inline(1))
        asked.append([query["sql"] for query in queries if "order_no IN" in query["sql"]])
        engine.take("b")

    assert [len(each) for each in asked] == [0, 1]


@pytest.mark.usefixtures("database")
def test_a_retry_is_sent_what_the_first_attempt_was_sent() -> None:
    engine = Engine()
    engine.accept("a", "b", contexts={"b": {"x": {"$result": "a"}}}, policy={"retries": 1})
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline({"$result": "nowhere"}))
    first = engine.take("b")
    engine.finish(first.token, error=TaskError(code="e", message="m"))
    engine.clock.advance(600)
    engine.relay.retry()

    assert engine.take("b").context == first.context == {"x": {"$literal": {"$result": "nowhere"}}}


def test_resuming_with_a_corrected_reference_goes_on(asha: User) -> None:
    engine = Engine()
    run = engine.accept("a", "b", contexts={"b": {"x": {"$result": "a", "pointer": "/none"}}})
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline({"n": 7}))
    assert statuses(run)[0] == "failed"

    corrected = {"b": {"x": {"$result": "a", "pointer": "/n"}}}
    handles.resume(run.number, contexts=corrected, by=asha, now=engine.clock())
    engine.relay.retry()
    sent = engine.take("b")
    engine.finish(sent.token)

    assert sent.context == {"x": 7}
    assert statuses(run)[0] == "succeeded"


def test_a_rerun_refers_to_its_own_results(asha: User) -> None:
    engine = Engine()
    run = engine.accept("a", "b", contexts={"b": {"x": {"$result": "a"}}})
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline(1))
    engine.finish(engine.take("b").token)

    handles.rerun(run.number, contexts={}, by=asha, now=engine.clock())
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline(2))

    assert engine.take("b").context == {"x": 2}


def test_what_goes_on_from_an_earlier_run_keeps_what_it_refers_to_there(asha: User) -> None:
    engine = Engine()
    contexts = {"b": {"x": {"$result": "a", "pointer": "/n"}}, "c": {"y": [{"$result": 1}, {"$result": "b"}]}}
    run = engine.accept("a", "b", "c", contexts=contexts)
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline({"n": 7}))
    engine.finish(engine.take("b").token, error=TaskError(code="e", message="m"))

    append_tasks(run.number, [], labels={}, by=asha, now=engine.clock())
    engine.relay.start()
    again = engine.take("b")
    engine.finish(again.token, Inline("of b"))

    assert again.context == {"x": 7}
    assert engine.take("c").context == {"y": [{"n": 7}, "of b"]}


def test_a_publisher_context_is_filled_in_too(asha: User) -> None:
    engine = Engine(leads=frozenset({"b"}))
    run = engine.accept("a", "b", contexts={"b": {"x": {"$result": "a"}}})
    engine.relay.start()
    engine.finish(engine.take("a").token, Inline(1))
    number = Task.objects.get(run=run, position=1).number

    given = engine.relay.context_of(number)
    engine.relay.publish(number, context={"again": {"$result": "a"}})

    assert given == {"x": 1}
    assert engine.take("b").context == {"again": 1}


def test_a_reference_that_can_mean_nothing_is_refused_at_once(api: Api) -> None:
    announce("wms", {"type": "object", "properties": {"date": {"type": "string"}}})
    refused = {
        "[1].context.a.$result": _submitted(api, {}, {"a": {"$result": "nowhere"}}),
        "[0].context.a.$result": _submitted(api, {"a": {"$result": "wms"}}, {}),
        "[1].context.a[0].$result": _submitted(api, {}, {"a": [{"$result": "wms"}]}),
        "[1].context.a.pointer": _submitted(api, {}, {"a": {"$result": 1, "pointer": "x"}}),
        "[1].context.a.$secret": _submitted(api, {}, {"a": {"$secret": "a b"}}),
    }

    assert {answer.status_code for answer in refused.values()} == {422}
    assert [list(faults_of(answer)) for answer in refused.values()] == [[f"transformers_list{at}"] for at in refused]
    assert Run.objects.count() == 0
    assert _submitted(api, {}, {"date": DATES}).status_code == 202
