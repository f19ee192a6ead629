from dataclasses import replace

import pytest

from shepherd.store.memory import MemoryStore
from shepherd.wire.control import StoreMark
from shepherd.worker.sight import Sight
from tests.support.waiting import wait_until

PATIENCE_S = 20.0


def _mark(store: MemoryStore) -> StoreMark:
    return StoreMark(url=store.url, claim=store.put(b"mark", key="shepherd/marks/1", media_type="text/plain"))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("memory://ours")


def test_the_same_store_is_seen(store: MemoryStore) -> None:
    sight = Sight(store, beat_s=0.01)

    sight.hear(_mark(store))
    sight.wait_known(timeout_s=PATIENCE_S)

    assert not sight.trouble


def test_another_store_is_named_beside_ours(store: MemoryStore) -> None:
    sight = Sight(store, beat_s=0.01)

    sight.hear(_mark(MemoryStore("memory://theirs")))
    sight.wait_known(timeout_s=PATIENCE_S)

    assert "memory://ours" in sight.trouble
    assert "memory://theirs" in sight.trouble
    assert "SHEPHERD_STORE" in sight.trouble


def test_a_store_that_is_only_called_alike_is_not_seen_until_the_mark_is_there(store: MemoryStore) -> None:
    mark = _mark(MemoryStore(store.url))
    sight = Sight(store, beat_s=0.01)

    sight.hear(mark)
    sight.wait_known(timeout_s=PATIENCE_S)
    found = sight.trouble
    _mark(store)

    assert "called alike" in found
    wait_until(lambda: not sight.trouble, timeout_s=PATIENCE_S, what="the store")


def test_the_right_mark_after_a_wrong_one_counts(store: MemoryStore) -> None:
    sight = Sight(store, beat_s=600)
    sight.hear(_mark(MemoryStore("memory://theirs")))
    sight.wait_known(timeout_s=PATIENCE_S)

    sight.hear(_mark(store))

    wait_until(lambda: not sight.trouble, timeout_s=PATIENCE_S, what="the store")


def test_nothing_speaks_against_a_store_of_which_nobody_told(store: MemoryStore) -> None:
    sight = Sight(store, beat_s=0.01)

    sight.hear(None)
    sight.wait_known(timeout_s=0)

    assert not sight.trouble


@pytest.mark.parametrize(
    ("message", "is_needed"),
    [
        (b'{"data": {"inline": {"claim": 1}}}', False),
        (b'{"data": {"claim": {"uri": "s3://x/y"}}}', True),
        (b'{"data": null}', False),
        (b"{}", False),
        (b"no JSON", False),
        (b"[]", False),
        (b"[" * 100_000, False),
    ],
)
def test_what_lies_in_a_store_is_told_from_what_travels_along(
    store: MemoryStore, message: bytes, is_needed: bool
) -> None:
    assert Sight(store, beat_s=1).is_needed_by(message, "data") is is_needed


def test_pauses_grow_and_the_last_time_a_task_is_answered(store: MemoryStore) -> None:
    pauses = []
    for times in range(6):
        sight = Sight(store, beat_s=10, now=lambda: 0.0)
        assert sight.hand_back(times, within_s=1.0)
        pauses.append(sight.pause_s)

    assert pauses == [3, 5, 9, 17, 33, 61]
    assert not Sight(store, beat_s=10).hand_back(6, within_s=1.0)


def test_a_mark_that_is_not_what_was_told_is_not_seen(store: MemoryStore) -> None:
    mark = _mark(store)
    sight = Sight(store, beat_s=600)

    sight.hear(replace(mark, claim=replace(mark.claim, sha256="0" * 64)))
    sight.wait_known(timeout_s=PATIENCE_S)

    assert "checksum" in sight.trouble
