"""What workers say of themselves, and what becomes of it, on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import queries, services
from shepherd.pipelines.models import Attempt, LogLine, Offer, Task, WorkerSeen
from shepherd.wire.beat import Beat
from shepherd.wire.logs import LogLine as Line
from shepherd.wire.logs import LogLines
from tests.support.web import NOW, an_offer, later, manifest, pipeline

pytestmark = pytest.mark.usefixtures("asha")


def a_beat(worker: str, free_slots: int) -> Beat:
    return Beat(worker=worker, at=NOW, free_slots=free_slots, holds=())


def lines(token: str, *texts: str, first: int = 1, worker: str = "w") -> LogLines:
    numbered = enumerate(texts, start=first)
    return LogLines(
        token=token, worker=worker, lines=tuple(Line(n=n, at=NOW, level="INFO", text=text) for n, text in numbered)
    )


@pytest.fixture
def attempt(asha: User) -> Attempt:
    services.accept(parse_pipeline(pipeline("sentinel")), by=asha, now=NOW)
    return Attempt.objects.create(
        task=Task.objects.get(), attempt_no=1, token="t1", context={}, data={"inline": None}, published_at=NOW
    )


def test_an_announced_task_is_in_the_catalogue_with_its_worker() -> None:
    schema = {"type": "object", "z": 1, "a": {"b": [None, True]}}
    services.announce(manifest(an_offer("skip_column", schema, description="Drop.", data="polars.LazyFrame")), now=NOW)

    [entry] = queries.catalogue(now=later(1))

    assert (entry.name, entry.description, entry.data) == ("skip_column", "Drop.", "polars.LazyFrame")
    assert entry.context_schema == schema
    assert [seen.worker for seen in entry.workers] == ["columns@node-3:4711:9f2c41"]
    assert (entry.availability.workers, entry.availability.slots) == (1, 1)


def test_announcing_again_changes_what_changed_and_writes_nothing_twice() -> None:
    services.announce(manifest("skip_column", "aggregate"), now=NOW)
    services.announce(
        manifest(an_offer("skip_column", description="Now with words."), "aggregate", slots=4), now=later(10)
    )

    seen = WorkerSeen.objects.get()
    assert (seen.slots, seen.first_seen_at, seen.last_seen_at) == (4, NOW, later(10))
    assert dict(Offer.objects.values_list("name", "description")) == {
        "skip_column": "Now with words.",
        "aggregate": "",
    }


def test_a_manifest_that_says_nothing_new_writes_one_row() -> None:
    services.announce(manifest(*(f"task_{n}" for n in range(50))), now=NOW)

    with CaptureQueriesContext(connection) as captured:
        services.announce(manifest(*(f"task_{n}" for n in range(50))), now=later(10))

    writes = [query for query in captured if query["sql"].startswith(("INSERT", "UPDATE"))]
    assert len(writes) == 1


def test_a_name_stays_in_the_catalogue_after_its_last_worker_has_gone() -> None:
    services.announce(manifest("skip_column"), now=NOW)

    [entry] = queries.catalogue(now=later(3600))

    assert entry.workers == ()
    assert entry.availability.workers == 0
    assert entry.availability.last_seen_at == NOW


def test_a_worker_that_says_goodbye_serves_no_more() -> None:
    services.announce(manifest("skip_column"), now=NOW)
    services.announce(manifest("skip_column", state="stopped"), now=later(1))

    [entry] = queries.catalogue(now=later(2))

    assert entry.availability.workers == 0


def test_the_schema_announced_last_is_shown() -> None:
    services.announce(manifest(an_offer("skip_column", {"title": "new"}), worker="b"), now=later(10))
    services.announce(manifest(an_offer("skip_column", {"title": "old"}), worker="a"), now=NOW)

    [entry] = queries.catalogue(now=later(11))

    assert entry.context_schema == {"title": "new"}
    assert [seen.worker for seen in entry.workers] == ["a", "b"]


def test_a_catalogue_takes_as_many_queries_for_many_workers_as_for_one() -> None:
    services.announce(manifest("a"), now=NOW)
    with CaptureQueriesContext(connection) as for_one:
        queries.catalogue(now=NOW)
    for number in range(5):
        services.announce(manifest("a", "b", "c", worker=f"w{number}"), now=NOW)

    with CaptureQueriesContext(connection) as for_many:
        assert len(queries.catalogue(now=NOW)) == 3

    assert len(for_many) == len(for_one)


def test_text_that_no_database_takes_is_mended() -> None:
    services.announce(
        manifest(
            an_offer("a", description="nul \0 half \ud800 long" + "x" * 50_000), host="h\0" + "x" * 500, pid=10**30
        ),
        now=NOW,
    )

    seen = WorkerSeen.objects.get()
    assert "\0" not in seen.host
    assert len(seen.host) <= 255
    assert "\0" not in Offer.objects.get().description


def test_the_last_beat_of_each_worker_counts() -> None:
    services.announce(manifest("a", worker="one"), now=NOW)
    services.announce(manifest("a", worker="two"), now=NOW)

    with CaptureQueriesContext(connection) as captured:
        services.beat([a_beat("one", 1), a_beat("two", 3), a_beat("one", 0), a_beat("stranger", 1)], now=later(10))

    assert len(captured) == 1
    assert list(WorkerSeen.objects.order_by("worker").values_list("worker", "free_slots", "last_seen_at")) == [
        ("one", 0, later(10)),
        ("two", 3, later(10)),
    ]


def test_no_beats_are_no_query() -> None:
    with CaptureQueriesContext(connection) as captured:
        services.beat([], now=NOW)

    assert not captured.captured_queries


def test_lines_are_stored_once_however_often_they_come(attempt: Attempt) -> None:
    for _ in range(2):
        services.append_log_lines([lines("t1", "one", "two"), lines("t1", "three", first=3)], now=NOW)

    assert list(LogLine.objects.order_by("n").values_list("n", "text")) == [(1, "one"), (2, "two"), (3, "three")]


def test_an_attempt_that_is_executed_twice_has_the_lines_of_both_workers(attempt: Attempt) -> None:
    services.append_log_lines([lines("t1", "one", "two", worker="dead")], now=NOW)
    services.append_log_lines([lines("t1", "one again", worker="heir")], now=NOW)

    page = queries.log_page(attempt.task.run.number, after=0, limit=10)
    told = [(entry.line.worker, entry.line.n, entry.line.text) for entry in page.entries]
    assert told == [("dead", 1, "one"), ("dead", 2, "two"), ("heir", 1, "one again")]


def test_lines_of_unknown_attempts_are_dropped(attempt: Attempt) -> None:
    stored = services.append_log_lines([lines("nobody's", "x"), lines("t1", "mine")], now=NOW)

    assert stored == 1
    assert LogLine.objects.get().text == "mine"


def test_one_line_that_no_database_takes_does_not_keep_the_others_out(attempt: Attempt) -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    odd = (
        Line(n=1, at=NOW, level="INFO", text="nul \0 half \udfff"),
        Line(n=2, at=early, level="a level with a long name", text="x" * 100_000),
        Line(n=0, at=NOW, level="INFO", text="no line is the 0th"),
        Line(n=2**40, at=NOW, level="INFO", text="nor this"),
        Line(n=3, at=NOW, level="INFO", text="fine"),
    )

    services.append_log_lines([LogLines(token="t1", worker="w", lines=odd), lines("t\0x\ud800", "y")], now=NOW)

    stored = list(LogLine.objects.order_by("n"))
    assert [line.n for line in stored] == [1, 2, 3]
    assert "\0" not in stored[0].text
    assert stored[1].at == NOW.astimezone(UTC)


def test_a_log_is_read_page_by_page_and_ends_with_its_run(attempt: Attempt) -> None:
    run = attempt.task.run
    services.append_log_lines([lines("t1", *(f"line {n}" for n in range(5)))], now=NOW)

    first = queries.log_page(run.number, after=0, limit=3)
    second = queries.log_page(run.number, after=first.next_after, limit=3)

    assert [entry.line.text for entry in (*first.entries, *second.entries)] == [f"line {n}" for n in range(5)]
    assert {entry.task.name for entry in first.entries} == {"sentinel"}
    assert (first.is_last, second.is_last) == (False, False)

    run.status = "succeeded"
    run.save()
    assert queries.log_page(run.number, after=0, limit=3).is_last is False
    assert queries.log_page(run.number, after=second.next_after, limit=3).is_last is True


def test_the_end_of_a_log_is_its_last_lines_in_order(attempt: Attempt) -> None:
    services.append_log_lines([lines("t1", *(f"line {n}" for n in range(5)))], now=NOW)

    tail = queries.log_tail(attempt.task.run.number, limit=2)

    assert [entry.line.text for entry in tail.entries] == ["line 3", "line 4"]
