"""Real workers that keep data elsewhere than the Task Publisher: they say so, and no task is lost by it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shepherd.site.local.broker_node import BrokerNode
from shepherd.store import Store, open_store
from shepherd.wire.control import StoreMark
from shepherd.wire.value import ClaimCheck, Inline
from tests.support.waiting import wait_until
from tests.support.workers import Conversation, WorkerProcess

TASKS = """
from shepherd.worker import Worker
worker = Worker()

@worker.task
def count_{n}(context: dict, data: bytes) -> int:
    return len(data)

@worker.task
def grow_{n}(context: dict) -> bytes:
    return b"x" * 100

@worker.task
def say_{n}(context: dict) -> str:
    return "small"

worker.run()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture
def talk(own_broker_node: BrokerNode, tmp_path: Path, store: Store) -> Iterator[Conversation]:
    with Conversation(own_broker_node.url, tmp_path) as conversation:
        claim = store.put(b"mark", key="shepherd/marks/1", media_type="text/plain")
        conversation.mark = StoreMark(url=store.url, claim=claim)
        yield conversation


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    return (tmp_path / "elsewhere").as_uri()


_numbers = iter(range(1000))


@pytest.fixture
def n() -> int:
    """Names of tasks are of one test each: they share a broker."""
    return next(_numbers)


def _start(talk: Conversation, n: int, name: str, *, store_url: str = "") -> WorkerProcess:
    # Pauses are counted in beats.
    talk.settings = {"SHEPHERD_BEAT_S": "0.1", **({"SHEPHERD_STORE": store_url} if store_url else {})}
    return talk.start(TASKS.format(n=n), "--slots", "2", "--name", name, file_name=f"{name}.py")


def _says(worker: WorkerProcess, text: str) -> str:
    wait_until(lambda: text in worker.log, timeout_s=60, what=text)
    return worker.log


def _data(store: Store) -> ClaimCheck:
    return store.put(b"x" * 77, key="runs/1/a", media_type="application/octet-stream")


def test_a_worker_with_another_store_says_so_at_start_and_does_what_needs_none(
    talk: Conversation, store: Store, elsewhere: str, n: int
) -> None:
    blind = _start(talk, n, "blind", store_url=elsewhere)

    told = _says(blind, "worker.sees_another_store")
    small = talk.result(f"say_{n}")
    large = talk.call(f"grow_{n}")

    assert elsewhere in told
    assert store.url in told
    assert small == Inline("small")
    assert large.error is not None
    assert (large.error.code, large.error.is_retryable) == ("store_unavailable", True)
    assert elsewhere in large.error.message
    assert store.url in large.error.message


def test_a_task_goes_to_the_worker_that_sees_its_data(talk: Conversation, store: Store, elsewhere: str, n: int) -> None:
    blind = _start(talk, n, "blind", store_url=elsewhere)
    _says(blind, "worker.sees_another_store")

    token = talk.publish(f"count_{n}", data=_data(store))
    _says(blind, "task.handed_back")
    _start(talk, n, "sighted")
    reply = talk.finished(token)

    assert reply.result == Inline(77)
    assert reply.worker.startswith("sighted@")


def test_a_task_that_only_a_blind_worker_serves_is_answered_with_both_stores(
    talk: Conversation, store: Store, elsewhere: str, n: int
) -> None:
    blind = _start(talk, n, "blind", store_url=elsewhere)
    _says(blind, "worker.sees_another_store")

    reply = talk.finished(talk.publish(f"count_{n}", data=_data(store)))

    assert reply.error is not None
    assert (reply.error.code, reply.error.is_retryable) == ("store_unavailable", True)
    assert elsewhere in reply.error.message
    assert store.url in reply.error.message
    assert blind.log.count("task.handed_back") == 6


def test_a_folder_that_is_only_called_alike_is_noticed_and_works_once_it_is_the_right_one(
    talk: Conversation, store: Store, n: int
) -> None:
    assert talk.mark is not None
    missing = replace(talk.mark.claim, uri=f"{store.url}/shepherd/marks/2")
    talk.mark = replace(talk.mark, claim=missing)
    worker = _start(talk, n, "early")
    told = _says(worker, "worker.sees_another_store")

    store.put(b"mark", key="shepherd/marks/2", media_type="text/plain")
    _says(worker, "worker.sees_the_store")

    assert "called alike" in told
    assert talk.result(f"count_{n}", data=_data(store)) == Inline(77)


def test_a_worker_on_a_bucket_sees_it(talk: Conversation, s3_url: str, n: int) -> None:
    bucket = open_store(s3_url)
    claim = bucket.put(b"mark", key="shepherd/marks/1", media_type="text/plain")
    talk.mark = StoreMark(url=bucket.url, claim=claim)
    worker = _start(talk, n, "on_s3", store_url=s3_url)

    counted = talk.result(f"count_{n}", data=_data(bucket))
    grown = talk.result(f"grow_{n}")

    assert counted == Inline(77)
    assert isinstance(grown, ClaimCheck)
    assert grown.uri.startswith(f"{s3_url}/runs/")
    assert bucket.read(grown) == b"x" * 100
    assert "sees_another_store" not in worker.log
