"""What the broker gave up: it ends as an attempt or as a row, with the reason, and holds up nobody."""

import json
from datetime import UTC, datetime

import pytest

from shepherd.broker.port import Message
from shepherd.broker.topology import BEATS, DEAD_EXCHANGE, REPLIES, task_queue
from shepherd.pipelines import catalogue, dead
from shepherd.pipelines.dead import BODY_LIMIT
from shepherd.pipelines.models import Attempt, DeadMessage, Task, WorkerSeen
from shepherd.wire.manifest import Manifest
from shepherd.wire.value import Inline
from tests.support.engine import Engine, finished, manifest, statuses
from tests.support.refusals import refuse

pytestmark = pytest.mark.usefixtures("database")


def give_up_delivery(engine: Engine, name: str) -> None:
    """Take a task and go away, until the broker gives it up."""
    for _ in range(21):
        intake = engine.broker.intake([task_queue(name)])
        delivery = intake.take(wait_s=0.1)
        assert delivery is not None
        intake.release(delivery)
        intake.close()


def send_dead(engine: Engine, body: bytes, *, message_id: str = "") -> None:
    message = Message(exchange=DEAD_EXCHANGE, routing_key="", body=body, message_id=message_id)
    assert engine.broker.publish([message]) == [None]


def test_a_task_that_was_delivered_too_often_is_lost_and_ends_failed_after_what_the_policy_allows() -> None:
    engine = Engine()
    run = engine.accept("scrape", policy={"retry_on_lost": 1})
    engine.relay.start()

    give_up_delivery(engine, "scrape")
    engine.bury()
    assert statuses(run) == ["running", "published"]
    give_up_delivery(engine, "scrape")
    engine.bury()

    assert statuses(run) == ["failed", "failed"]
    assert Task.objects.get(run=run).error["code"] == "delivered_too_often"
    first, second = Attempt.objects.order_by("number")
    assert [first.status, second.status] == ["lost", "lost"]
    assert first.error["code"] == "delivered_too_often"
    assert not first.is_queued
    assert DeadMessage.objects.count() == 0


def test_a_claimed_or_answered_task_does_not_mind_that_a_copy_of_it_was_given_up() -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    token = Attempt.objects.get().token

    engine.claim(token)
    give_up_delivery(engine, "scrape")
    engine.bury()

    assert statuses(run) == ["running", "running"]
    engine.finish(token, Inline(1))
    assert statuses(run) == ["succeeded", "succeeded"]


def test_what_nobody_can_use_becomes_a_row_with_its_source_and_its_reason() -> None:
    engine = Engine()
    engine.say(b'{"v":0,"type":"finished","token":7}')
    engine.say(b'{"v":9,"type":"finished"}')
    engine.take_replies()
    send_dead(engine, b"\xff nul \0 and more")
    send_dead(engine, b"x" * (BODY_LIMIT * 2))
    engine.bury()

    rows = list(DeadMessage.objects.order_by("number"))
    assert [(row.source, row.reason) for row in rows[:2]] == [
        (REPLIES, "status: must be a string"),
        (REPLIES, "v: is 9, but this side speaks version 0"),
    ]
    assert json.loads(rows[0].body)["token"] == 7
    assert rows[2].source == "shepherd.dead"
    assert "can't be read" in rows[2].reason
    assert rows[2].body == "\N{REPLACEMENT CHARACTER} nul \N{REPLACEMENT CHARACTER} and more"
    assert len(rows[3].body) == BODY_LIMIT
    engine.bury()
    assert DeadMessage.objects.count() == len(rows)


def test_a_dead_letter_that_the_database_refuses_leaves_a_row_that_says_so_and_is_not_tried_again() -> None:
    engine = Engine()
    refuse("pipelines_deadmessage", "body", "refused", on="INSERT")

    send_dead(engine, b"refused")
    send_dead(engine, b"taken")
    engine.bury()
    engine.bury()

    rows = DeadMessage.objects.order_by("number")
    assert [(row.body, "refused" in row.reason) for row in rows] == [("", True), ("taken", False)]


def test_of_a_hundred_replies_with_one_that_the_database_refuses_the_others_are_recorded() -> None:
    engine = Engine()
    runs = [engine.accept("scrape") for _ in range(100)]
    engine.relay.start()
    tokens = [engine.take("scrape").token for _ in runs]
    refuse("pipelines_attempt", "worker", "refused", on="UPDATE")

    for number, token in enumerate(tokens):
        body = finished(token, Inline("nul \0 and all")).to_bytes()
        engine.say(body.replace(b'"worker":"w"', b'"worker":"refused"') if number == 50 else body)
    engine.take_replies()
    engine.bury()

    assert Attempt.objects.filter(status="succeeded").count() == 99
    assert Attempt.objects.get(token=tokens[50]).status == "published"
    (row,) = DeadMessage.objects.all()
    assert row.source == REPLIES
    assert row.reason.startswith("the database refuses it: ")


def test_a_manifest_that_the_database_refuses_keeps_no_other_worker_from_being_heard() -> None:
    engine = Engine()
    refuse("pipelines_workerseen", "worker", "refused", on="INSERT")

    engine.hear(manifest(worker="refused", free_slots=5), manifest(worker="heard", free_slots=5))

    assert WorkerSeen.objects.get(worker="heard").free_slots == 5


def test_nothing_that_workers_say_stays_unsettled_after_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()

    def failing(manifest: Manifest, **_: object) -> None:
        raise LookupError(manifest.worker)

    with monkeypatch.context() as broken:
        broken.setattr(catalogue, "announce", failing)
        with pytest.raises(LookupError):
            engine.hear(manifest(worker="w", free_slots=1))
    assert engine.broker.server.unacked(BEATS) == engine.broker.server.depth(BEATS) == 0
    engine.hear(manifest(worker="w", free_slots=1))

    assert WorkerSeen.objects.get().free_slots == 1


def test_of_messages_that_nobody_can_use_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "MESSAGES_KEPT", 2)

    for text in ("first", "second", "third"):
        dead.keep_dead_message(source="q", reason=text, body=b"{}", now=datetime.now(UTC))

    assert list(DeadMessage.objects.order_by("number").values_list("reason", flat=True)) == ["second", "third"]
