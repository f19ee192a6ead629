"""`manage.py prune` over real databases, a real broker and real stores: what goes, and what nobody may lose."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import override_settings

from shepherd.broker import connect
from shepherd.broker.port import Broker, Message, Presence
from shepherd.broker.topology import task_queue, task_queue_spec
from shepherd.domain.pipeline import TaskSpec
from shepherd.errors import InvalidInputError, StoreUnavailableError
from shepherd.pipelines import announced, catalogue, pruning, services
from shepherd.pipelines.dead import keep_dead_message
from shepherd.pipelines.logbook import append_log_lines
from shepherd.pipelines.models import Attempt, DeadMessage, LogLine, Run, StatusChange, Task, WorkerSeen
from shepherd.site.local.broker_node import BrokerNode
from shepherd.site.pruning import period
from shepherd.store import Store, open_store
from shepherd.wire.logs import LogLine as Line
from shepherd.wire.logs import LogLines
from shepherd.wire.manifest import Manifest
from shepherd.wire.value import ClaimCheck, Inline
from tests.support.engine import Engine, manifest
from tests.support.ports import free_port
from tests.support.waiting import wait_until

OLD = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture
def prune(store: Store, broker_node: BrokerNode, tmp_path: Path, database: str) -> Iterator[Callable[..., str]]:
    """Calls the command on this test's database, store and broker, and returns what it printed."""

    def call(*arguments: str, older_than: str = "30d") -> str:
        out = StringIO()
        call_command("prune", "--older-than", older_than, *arguments, stdout=out)
        return out.getvalue()

    (tmp_path / "projects" / "generic_transformations" / "workers").mkdir(parents=True)
    server = replace(
        settings.SHEPHERD,
        store_url=store.url,
        broker_url=broker_node.url,
        broker_ctl="off",
        projects_folder=tmp_path / "projects",
    )
    with override_settings(SHEPHERD=server):
        yield call


def _put(store: Store, run: Run, name: str, *, is_old: bool = True) -> ClaimCheck:
    """Leave an object of a run, as its task does, long ago."""
    claim = store.put(name.encode(), key=f"runs/{run.id}/{name}/e1/result", media_type="text/plain")
    if is_old:
        _age(store, claim)
    return claim


def _age(store: Store, claim: ClaimCheck) -> None:
    os.utime(store.fetch(claim, into=Path()), (OLD.timestamp(), OLD.timestamp()))


def _finished(engine: Engine, store: Store, *names: str) -> tuple[Run, list[ClaimCheck]]:
    """Return a run that ended long ago, and what its tasks left."""
    run = engine.accept(*names)
    engine.relay.start()
    claims = [_put(store, run, name) for name in names]
    for name, claim in zip(names, claims, strict=True):
        engine.finish(engine.take(name).token, claim)
    run.refresh_from_db()
    assert run.status == "succeeded"
    return run, claims


def _rows() -> list[int]:
    return [model.objects.count() for model in (Run, Task, Attempt, StatusChange, LogLine)]


def _is_there(store: Store, claim: ClaimCheck) -> bool:
    try:
        return bool(store.read(claim))
    except StoreUnavailableError:
        return False


def test_nothing_goes_without_yes(prune: Callable[..., str], store: Store) -> None:
    run, claims = _finished(Engine(), store, "scrape", "upload")
    before = _rows()

    told = prune()

    assert "1 would go, with 2 tasks, 2 attempts" in told
    assert f"objects in {store.url}: 2 would go" in told
    assert "Nothing was removed" in told
    assert _rows() == before
    assert all(_is_there(store, claim) for claim in claims)
    assert Run.objects.get().number == run.number


def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    _, claims = _finished(engine, store, "scrape", "upload")
    token = Attempt.objects.values_list("token", flat=True)[0]
    line = Line(n=1, at=OLD, level="INFO", text="31 scenes")
    append_log_lines([LogLines(token=token, worker="w", lines=(line,))], now=OLD)
    keep_dead_message(source="shepherd.replies", reason="no JSON", body=b"?", now=OLD)
    keep_dead_message(source="shepherd.replies", reason="no JSON", body=b"?", now=datetime.now(UTC))

    told = prune("--yes")

    assert "1 removed, with 2 tasks, 2 attempts" in told
    assert "1 log lines" in told
    assert _rows() == [0] * 5
    assert DeadMessage.objects.count() == 1
    assert not any(_is_there(store, claim) for claim in claims)
    assert "0 removed" in prune("--yes")


def test_what_has_not_ended_or_ended_lately_stays(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    running = engine.accept("scrape", "upload")
    engine.relay.start()
    first = _put(store, running, "scrape")
    engine.finish(engine.take("scrape").token, first)
    lately, claims = _finished(engine, store, "other")
    Run.objects.filter(number=lately.number).update(finished_at=datetime.now(UTC) - timedelta(days=29))
    before = _rows()

    prune("--yes")

    assert _rows() == before
    assert all(_is_there(store, claim) for claim in [first, *claims])
    assert engine.take("upload").data == first


def test_what_a_later_run_needs_stays_until_that_run_goes(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    earlier, (first, last) = _finished(engine, store, "scrape", "transform")
    beside = store.put(b"a part", key=f"runs/{earlier.id}/transform/e1/part", media_type="text/plain")
    _age(store, beside)
    later = _append(earlier, "upload")

    assert "2 would go" not in prune()
    prune("--yes")

    assert list(Run.objects.values_list("number", flat=True)) == [later.number]
    assert not _is_there(store, first)
    assert _is_there(store, last)
    assert _is_there(store, beside)
    engine.relay.start()
    upload = engine.take("upload")
    assert upload.data == last
    engine.finish(upload.token, Inline(1))

    prune("--yes")

    assert _rows() == [0] * 5
    assert list(store.list("runs")) == []


def _append(run: Run, name: str) -> Run:
    task = TaskSpec(index=0, order_no=1, name=name, context={}, policy={})
    by = User.objects.get(username="ana")
    return services.append_tasks(run.number, [task], labels={}, by=by, now=OLD - timedelta(days=1)).run


def test_a_run_that_is_gone_on_from_while_it_is_pruned_leaves_what_is_needed(
    prune: Callable[..., str], store: Store
) -> None:
    engine = Engine()
    earlier, (claim,) = _finished(engine, store, "scrape")

    def prune_beside() -> None:
        try:
            prune("--yes")
        finally:
            connections.close_all()

    pruning_beside = threading.Thread(target=prune_beside)
    with transaction.atomic():
        later = _append(earlier, "upload")
        pruning_beside.start()
        # Either it waits for us (SQLite), or it leaves the run alone (PostgreSQL).
        pruning_beside.join(1.0)
    pruning_beside.join(30)
    prune("--yes")

    assert not pruning_beside.is_alive()
    assert Run.objects.filter(number=later.number).exists()
    assert _is_there(store, claim)
    engine.relay.start()
    assert engine.take("upload").data == claim


def test_a_rerun_survives_its_origin(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    run, _ = _finished(engine, store, "scrape")
    again = services.run_again(run.number, labels={}, by=User.objects.get(username="ana"), now=datetime.now(UTC)).run

    prune("--yes")

    again.refresh_from_db()
    assert again.origin_id is None
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline(1))
    again.refresh_from_db()
    assert again.status == "succeeded"


def test_a_run_whose_withdrawn_attempt_lies_in_a_queue_stays(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    run = engine.accept("scrape")
    engine.relay.start()
    services.cancel(run.number, by=User.objects.get(username="ana"), now=engine.clock())
    assert Attempt.objects.get().is_queued

    told = prune("--yes")

    assert "withdrawn or lost attempt of theirs: 1" in told
    assert Run.objects.get().status == "cancelled"


def test_a_run_of_which_a_worker_may_yet_get_a_lost_attempt_stays_until_its_queue_is_gone(
    prune: Callable[..., str], store: Store, broker: Broker
) -> None:
    name = f"retired_{os.urandom(4).hex()}"
    broker.declare(queues=[task_queue_spec(name)])
    engine = Engine()
    run = engine.accept(name, policy={"retry_on_lost": 0})
    engine.relay.start()
    token = engine.take(name).token
    engine.claim(token)
    engine.lose(token)
    run.refresh_from_db()
    assert (run.status, Attempt.objects.get().status) == ("failed", "lost")

    # Its queue is empty, and nobody serves it any more.
    first, second = prune("--yes"), prune("--yes")

    assert "lost attempt of theirs: 1" in first
    assert f"shepherd.task.{name}" in first
    assert "1 removed" in second
    assert not Run.objects.exists()


def test_objects_of_no_run_go_when_they_are_old(prune: Callable[..., str], store: Store) -> None:
    gone = Run(id="00000000-0000-4000-8000-000000000001")
    old, young = _put(store, gone, "old"), _put(store, gone, "young", is_old=False)
    other = store.put(b"x", key="somebody/elses", media_type="text/plain")
    _age(store, other)

    prune("--yes")

    assert not _is_there(store, old)
    assert _is_there(store, young)
    assert _is_there(store, other)


def test_pruning_goes_on_where_it_was_broken_off(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    for _ in range(120):
        engine.accept("scrape")
        engine.relay.start()
        engine.finish(engine.take("scrape").token, Inline(1))
    steps = pruning.remove_old_runs(before=OLD)

    first = next(steps)
    del steps

    assert 0 < first.runs < 120
    assert Run.objects.count() == 120 - first.runs
    assert f"{120 - first.runs} removed" in prune("--yes")
    assert _rows() == [0] * 5


def test_logs_of_any_length_go_a_part_at_a_time(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    _finished(engine, store, "scrape")
    attempt = Attempt.objects.get()
    LogLine.objects.bulk_create(
        (LogLine(attempt=attempt, n=n, at=OLD, level="INFO", text="x") for n in range(1, 25_001)), batch_size=5000
    )

    parts = [rows.lines for rows in pruning.remove_old_runs(before=OLD)]

    assert sum(parts) == 25_000
    assert max(parts) <= 10_000
    assert LogLine.objects.count() == 0


def test_runs_go_on_while_others_are_pruned(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    for _ in range(150):
        engine.accept("scrape")
    engine.relay.start()
    for _ in range(150):
        engine.finish(engine.take("scrape").token, Inline(1))
    engine.clock.now = datetime.now(UTC)

    def prune_beside() -> None:
        try:
            prune("--yes")
        finally:
            connections.close_all()

    pruning_beside = threading.Thread(target=prune_beside)
    pruning_beside.start()
    live: list[Run] = []
    while pruning_beside.is_alive() and len(live) < 200:
        live.append(engine.accept("transform", "upload"))
        engine.relay.start()
        engine.finish(engine.take("transform").token, Inline(1))
        engine.finish(engine.take("upload").token, Inline(2))
    pruning_beside.join(60)

    assert live
    assert Run.objects.count() == Run.objects.filter(status="succeeded").count() == len(live)


@pytest.fixture
def broker(broker_node: BrokerNode) -> Iterator[Broker]:
    broker = connect(broker_node.url, name="test")
    assert broker.wait_connected(timeout_s=30)
    yield broker
    broker.close()


def test_starts_of_workers_go_but_for_what_the_catalogue_shows(prune: Callable[..., str], store: Store) -> None:
    engine = Engine()
    for worker in ("first", "second", "third", "live"):
        engine.hear(manifest("scrape", *(["retired"] if worker == "first" else []), worker=worker))
    WorkerSeen.objects.exclude(worker="live").update(last_seen_at=OLD)

    would, did = prune(), prune("--yes")

    assert "nor shown by the catalogue: 2 would go" in would
    assert "nor shown by the catalogue: 2 removed" in did
    assert set(WorkerSeen.objects.values_list("worker", flat=True)) == {"first", "live"}
    assert [entry.name for entry in announced.catalogue(now=datetime.now(UTC))] == ["retired", "scrape"]


def test_empty_queues_of_names_that_nobody_serves_go(prune: Callable[..., str], store: Store, broker: Broker) -> None:
    names = {word: f"{word}_{os.urandom(4).hex()}" for word in ("idle", "full", "consumed", "served", "awaited", "ran")}
    broker.declare(queues=[task_queue_spec(name) for name in names.values()])
    engine = Engine()
    engine.clock.now = OLD
    _finished(engine, store, names["ran"])
    engine.accept(names["awaited"])
    for worker, name in enumerate(names.values()):
        seen_at = datetime.now(UTC) if name == names["served"] else OLD
        announced = [] if name == names["ran"] else [name]
        said = manifest(*announced, worker=f"w{worker}", at=OLD)
        catalogue.announce(Manifest.parse(said), now=seen_at)
    assert broker.publish([Message(routing_key=task_queue(names["full"]), body=b"x")]) == [None]
    consuming = broker.subscribe(task_queue(names["consumed"]), prefetch=1)
    wait_until(lambda: consuming.generation, timeout_s=20, what="a consumer")

    shown = prune()
    there_before = _there(broker, names)
    told = prune("--yes")

    assert there_before == set(names)
    for word in ("idle", "ran"):
        assert task_queue(names[word]) in shown
        assert task_queue(names[word]) in told
    assert _there(broker, names) == set(names) - {"idle", "ran"}


def _there(broker: Broker, names: dict[str, str]) -> set[str]:
    compared = broker.compare(queues=[task_queue_spec(name) for name in names.values()])
    return {word for word, each in zip(names, compared, strict=True) if each.presence is Presence.SAME}


def test_a_broker_that_is_away_keeps_nothing_else_from_going(prune: Callable[..., str], store: Store) -> None:
    _finished(Engine(), store, "scrape")
    away = replace(settings.SHEPHERD, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")

    with override_settings(SHEPHERD=away):
        told = prune("--yes")

    assert "empty queues: not looked at" in told
    assert _rows() == [0] * 5


def test_a_store_that_is_away_keeps_everything(prune: Callable[..., str], store: Store, tmp_path: Path) -> None:
    _finished(Engine(), store, "scrape")
    (tmp_path / "file").touch()
    before = _rows()

    with (
        override_settings(SHEPHERD=replace(settings.SHEPHERD, store_url=(tmp_path / "file").as_uri())),
        pytest.raises(CommandError, match="can't use the folder"),
    ):
        prune("--yes")

    assert _rows() == before


def test_objects_go_from_a_bucket_too(prune: Callable[..., str], s3_url: str) -> None:
    engine, bucket = Engine(), open_store(s3_url)
    run = engine.accept("scrape")
    engine.relay.start()
    claim = bucket.put(b"x" * 100_000, key=f"runs/{run.id}/1-scrape-1/e/result", media_type="text/plain")
    engine.finish(engine.take("scrape").token, claim)
    kept = engine.accept("upload")
    needed = bucket.put(b"y", key=f"runs/{kept.id}/1-upload-1/e/result", media_type="text/plain")

    with override_settings(SHEPHERD=replace(settings.SHEPHERD, store_url=s3_url)):
        # A bucket tells times to the second.
        wait_until(lambda: "1 would go, 0.1 MiB" in prune(older_than="0s"), timeout_s=20, what="an object that is old")
        prune("--yes", older_than="0s")

    assert [each.key for each in bucket.list("")] == [f"runs/{kept.id}/1-upload-1/e/result"]
    assert bucket.read(needed) == b"y"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("2w", 1_209_600), ("12h", 43_200), ("5m", 300), ("0s", 0)]
)
def test_a_period_is_read(text: str, seconds: int) -> None:
    assert period(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 days", "9999999d"])
def test_another_period_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--older-than"):
        period(text)


def test_a_database_without_tables_is_told_as_such(tmp_path: Path) -> None:
    environ = {**os.environ, "SHEPHERD_ENV_FILE": "", "SHEPHERD_DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3"}

    called = subprocess.run(
        [sys.executable, "manage.py", "prune", "--older-than", "30d"],
        env=environ, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert called.returncode == 1
    assert "the database has no tables: is SHEPHERD_DATABASE_URL" in called.stderr
