"""The relay over real databases and the shipped fake broker: what is published when, and what is recorded."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection

from shepherd.broker.topology import REPLIES
from shepherd.errors import DatabaseUnavailableError
from shepherd.pipelines import recording
from shepherd.pipelines.advance import Moved
from shepherd.pipelines.models import Attempt, StatusChange, Task
from shepherd.publisher.hearing import hear_replies
from shepherd.wire.envelope import Claimed, Reply, Started, TaskError
from shepherd.wire.value import ClaimCheck, Inline
from tests.support.engine import Engine, finished, statuses
from tests.support.refusals import refuse

pytestmark = pytest.mark.usefixtures("database")

CLAIM = ClaimCheck(uri="file:///s/a.csv", sha256="0" * 64, size=3, media_type="text/csv")


def test_tasks_are_published_one_after_another_each_with_what_the_one_before_returned() -> None:
    engine = Engine()
    run = engine.accept("scrape", "transform", "upload", contexts={"transform": {"b": [1, None], "a": "it's"}})

    engine.relay.start()
    assert statuses(run) == ["running", "published", "pending", "pending"]
    engine.finish(engine.take("scrape").token, CLAIM)
    assert statuses(run) == ["running", "succeeded", "published", "pending"]
    transform = engine.take("transform")
    engine.finish(transform.token, Inline({"rows": 3}))
    upload = engine.take("upload")
    engine.finish(upload.token)

    assert statuses(run) == ["succeeded"] * 4
    assert transform.data == CLAIM
    assert list(transform.context.items()) == [("b", [1, None]), ("a", "it's")]
    assert upload.data == Inline({"rows": 3})
    assert [envelope.name for envelope in engine.published()] == ["scrape", "transform", "upload"]


def test_a_card_is_kept_beside_the_result_and_one_that_is_too_large_is_not() -> None:
    engine = Engine()
    run = engine.accept("scrape", "transform")
    engine.relay.start()
    card = {"kind": "table", "rows": 3, "columns": [{"name": "ä", "type": "int64"}]}

    for name, given in (("scrape", card), ("transform", {"first": "x" * 40_000})):
        engine.say(replace(finished(engine.take(name).token, CLAIM), card=given).to_bytes())
        engine.take_replies()

    assert statuses(run) == ["succeeded"] * 3
    assert [task.card for task in Task.objects.filter(run=run).order_by("position")] == [card, None]


def test_only_the_first_task_of_a_sample_is_told_how_many_rows_to_take() -> None:
    engine = Engine()
    run = engine.accept("scrape", "transform", sample_rows=1000)
    engine.relay.start()

    scrape = engine.take("scrape")
    engine.finish(scrape.token, CLAIM)
    transform = engine.take("transform")
    engine.finish(transform.token)

    assert (scrape.sample_rows, scrape.data_rows) == (1000, 1000)
    assert (transform.sample_rows, transform.data_rows) == (1000, None)
    assert statuses(run) == ["succeeded"] * 3


def test_a_failed_task_keeps_later_tasks_from_being_published() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()

    error = TaskError(code="no_such_page", message="404", traceback="Traceback …")
    engine.finish(engine.take("scrape").token, error=error)

    assert statuses(run) == ["failed", "failed", "pending"]
    assert Task.objects.get(run=run, position=0).error["traceback"] == "Traceback …"
    assert [envelope.name for envelope in engine.published()] == ["scrape"]


def test_only_the_first_reply_counts() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    token = engine.take("scrape").token

    engine.finish(token, Inline(1))
    engine.finish(token, Inline(2))
    engine.finish(token, error=TaskError(code="late", message="late"))
    engine.start(token)

    assert statuses(run) == ["running", "succeeded", "published"]
    assert Task.objects.get(run=run, position=0).result == {"inline": 1}
    assert len(engine.published()) == 2


def test_two_answers_for_one_attempt_in_one_batch_are_recorded_once() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    token = engine.take("scrape").token

    engine.say(finished(token, Inline(1)).to_bytes())
    engine.say(finished(token, Inline(2)).to_bytes())
    engine.take_replies()

    assert Task.objects.get(run=run, position=0).result == {"inline": 1}
    assert len(engine.published()) == 2


def test_a_task_that_runs_for_a_while_says_so() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()

    engine.start(engine.take("scrape").token)

    assert statuses(run) == ["running", "running"]
    assert Attempt.objects.get().worker == "w"


def test_all_that_was_said_of_one_attempt_in_one_batch_is_one_change() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token

    for said in (Started, Claimed, Started, Claimed):
        engine.say(said(token=token, worker="w", at=engine.clock()).to_bytes())
    engine.take_replies()

    changes = StatusChange.objects.filter(run=run, task__isnull=False).order_by("number")
    assert [change.to_status for change in changes] == ["published", "running"]
    assert Attempt.objects.get().claimed_at is not None


def test_a_success_counts_that_comes_in_one_batch_with_the_loss_of_its_attempt() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token

    lost = finished(token, error=TaskError(code="worker_stopped", message="told twice to end"))
    engine.say(replace(lost, is_lost=True).to_bytes())
    engine.say(finished(token, Inline(1)).to_bytes())
    engine.take_replies()

    assert statuses(run) == ["succeeded", "succeeded"]
    assert len(engine.published()) == 1


def test_what_cannot_be_read_is_kept_with_the_reason_and_holds_up_nobody() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = engine.take("scrape").token

    engine.say(b'{"v":0,"type":"finished","token":7}')
    engine.say(b"\xff not json")
    engine.finish("a token that nobody has")
    engine.finish(token)

    assert statuses(run) == ["succeeded", "succeeded"]
    reasons = [letter["reason"] for letter in engine.dead()]
    assert reasons[0] == "status: must be a string"
    assert "not UTF-8" in reasons[1]
    assert len(reasons) == 2


def test_a_batch_with_one_reply_that_cannot_be_stored_stores_the_others() -> None:
    engine = Engine()
    runs = [engine.accept("scrape") for _ in range(5)]
    engine.relay.start()
    tokens = [engine.take("scrape").token for _ in runs]

    for token in tokens[:4]:
        engine.say(finished(token, Inline("nul \0 and all")).to_bytes())
    body = finished(tokens[4]).to_bytes().replace(b'"log_lines":0', b'"log_lines":99999999999999999999')
    engine.say(body)
    engine.take_replies()

    assert [statuses(run)[0] for run in runs] == ["succeeded"] * 4 + ["running"]
    (letter,) = engine.dead()
    assert "log_lines" in letter["reason"]


def test_a_reply_that_the_database_refuses_is_buried_alone() -> None:
    engine = Engine()
    first, second = engine.accept("scrape"), engine.accept("scrape")
    engine.relay.start()
    tokens = [engine.take("scrape").token for _ in range(2)]
    refuse("pipelines_attempt", "worker", "refused", on="UPDATE")

    engine.say(finished(tokens[0]).to_bytes().replace(b'"worker":"w"', b'"worker":"refused"'))
    engine.say(finished(tokens[1]).to_bytes())
    engine.take_replies()

    assert [statuses(first)[0], statuses(second)[0]] == ["running", "succeeded"]
    assert "refuses" in engine.dead()[0]["reason"]


def test_a_reply_waits_for_a_database_that_takes_nothing_now() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    engine.say_finished(engine.take("scrape").token)
    deliveries = engine.replies.take(at_most=100, wait_s=1)

    with connection.cursor() as cursor:
        # As before a migration. What PostgreSQL says after a failover is of the same kind: not of this reply.
        cursor.execute("ALTER TABLE pipelines_statuschange RENAME TO elsewhere")
    with pytest.raises(DatabaseUnavailableError):
        engine.relay.take_replies(deliveries)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE elsewhere RENAME TO pipelines_statuschange")
    engine.relay.take_replies(deliveries)

    assert statuses(run) == ["succeeded", "succeeded"]
    assert engine.dead() == []


def test_a_reply_over_which_recording_fails_unforeseen_comes_once_more_and_is_buried_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine()
    runs = [engine.accept("scrape") for _ in range(3)]
    engine.relay.start()
    tokens = [engine.take("scrape").token for _ in runs]
    for token in tokens:
        engine.say_finished(token)
    record = recording.record

    def failing(replies: Sequence[Reply], **rest: Any) -> Moved:
        if any(reply.token == tokens[1] for reply in replies):
            raise LookupError("nobody thought of this")
        return record(replies, **rest)

    monkeypatch.setattr(recording, "record", failing)
    with pytest.raises(LookupError):
        hear_replies(engine.replies, engine.relay)
    assert [statuses(run)[0] for run in runs] == ["succeeded", "running", "succeeded"]
    hear_replies(engine.replies, engine.relay)

    (letter,) = engine.dead()
    assert letter["reason"] == "it can't be recorded: LookupError('nobody thought of this')"
    assert engine.broker.server.unacked(REPLIES) == engine.broker.server.depth(REPLIES) == 0


def test_what_no_broker_would_take_fails_its_task_and_keeps_no_other_waiting() -> None:
    engine = Engine()
    large = engine.accept("scrape", "upload", contexts={"upload": {"note": "x" * 1_000_000}})
    small = engine.accept("scrape", "upload")
    engine.relay.start()
    engine.say_finished(engine.take("scrape").token, Inline("x" * 16_000_000))
    engine.say_finished(engine.take("scrape").token)

    engine.take_replies()

    assert statuses(large) == ["failed", "succeeded", "failed"]
    error = Task.objects.get(run=large, name="upload").error
    assert error is not None
    assert error["code"] == "too_large"
    assert "at most 16777216 travel" in error["message"]
    assert statuses(small) == ["running", "succeeded", "published"]
    assert engine.take("upload").run_number == small.number


def test_what_was_written_down_and_not_confirmed_is_published_again_as_the_same_attempt() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.broker.server.is_up = False
    engine.relay.start()
    assert statuses(run) == ["running", "published"]
    assert engine.published() == []

    engine.broker.server.is_up = True
    assert engine.relay.resend() == 0
    engine.clock.advance(6)
    assert engine.relay.resend() == 1
    assert engine.relay.resend() == 0

    (envelope,) = engine.published()
    assert envelope.token == Attempt.objects.get().token
    assert envelope.attempt == 1


def test_runs_start_in_the_order_of_their_acceptance() -> None:
    engine = Engine()
    runs = [engine.accept("scrape") for _ in range(30)]

    engine.relay.start()

    assert [envelope.run_number for envelope in engine.published()] == [run.number for run in runs]


def test_starting_twice_publishes_once() -> None:
    engine = Engine()
    engine.accept("scrape")

    engine.relay.start()
    engine.relay.start()

    assert len(engine.published()) == 1


def test_a_run_with_a_data_url_waits_for_its_data() -> None:
    engine = Engine()
    run = engine.accept("scrape", data_url="http://example.org/a.csv")
    engine.relay.start()
    assert engine.heard.due == {run.number: "http://example.org/a.csv"}
    assert statuses(run) == ["running", "pending"]

    engine.relay.set_data(run.number, CLAIM)
    engine.relay.set_data(run.number, Inline("a second one"))

    assert engine.take("scrape").data == CLAIM
    assert len(engine.published()) == 1


def test_a_task_with_a_publisher_is_left_to_it() -> None:
    engine = Engine(leads=frozenset({"transform"}))
    run = engine.accept("scrape", "transform", "upload")
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline(1))
    assert statuses(run) == ["running", "succeeded", "pending", "pending"]
    assert engine.heard.led == [run.number]

    transform, upload = Task.objects.filter(run=run).order_by("position")[1:]
    engine.relay.publish(transform.number, context={"more": True}, data=None)
    engine.relay.publish(transform.number, context={"again": True}, data=None)
    led = engine.take("transform")
    engine.finish(led.token, Inline(2))
    assert statuses(run) == ["running", "succeeded", "succeeded", "pending"]
    engine.relay.publish(upload.number, context=None, data=Inline("changed"))

    assert (led.context, led.data) == ({"more": True}, Inline(1))
    assert engine.take("upload").data == Inline("changed")


def test_a_run_that_was_given_up_takes_no_reply() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    token = engine.take("scrape").token

    task = Task.objects.get(run=run, position=0)
    engine.relay.fail(run.number, TaskError(code="x", message="given up"), task_number=task.number)
    engine.finish(token, Inline(1))

    assert statuses(run) == ["failed", "failed", "pending"]
    assert Attempt.objects.get().status == "withdrawn"


def test_every_change_of_a_status_is_written_down() -> None:
    engine = Engine()
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    engine.finish(engine.take("scrape").token)
    engine.finish(engine.take("upload").token)

    changes = StatusChange.objects.filter(run=run).order_by("number")

    assert [(change.task_id is None, change.from_status, change.to_status) for change in changes] == [
        (True, "", "accepted"),
        (True, "accepted", "running"),
        (False, "pending", "published"),
        (False, "published", "succeeded"),
        (False, "pending", "published"),
        (False, "published", "succeeded"),
        (True, "running", "succeeded"),
    ]
