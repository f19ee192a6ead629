"""What workers are told of withdrawn attempts, over real databases and the shipped fake broker."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models.functions import Now

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.port import Subscription
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, EXCHANGES, worker_key
from shepherd.pipelines.models import Attempt
from shepherd.pipelines.withdrawn import queued_lost
from shepherd.publisher.marking import MARKS, Marking
from shepherd.publisher.withdrawing import Withdrawing
from shepherd.store import open_store
from shepherd.store.memory import MemoryStore
from shepherd.wire.control import Withdrawals
from shepherd.wire.envelope import Withdrawn
from tests.support.engine import Engine, manifest

pytestmark = pytest.mark.usefixtures("database")

WORKER = "scrapers@node-2.example.org:1:a"


def test_a_worker_that_asks_is_sent_the_whole_list() -> None:
    engine = Engine()
    tokens = _published(engine, 3)
    _withdraw(*tokens[:2])
    heard = _listener(engine, worker_key(WORKER))

    engine.hear(manifest(worker=WORKER, wants_withdrawals=True))

    assert _heard(heard) == [Withdrawals(tokens=tuple(tokens[:2]), is_complete=True)]


def test_an_empty_list_is_sent_too_and_only_to_whom_asks() -> None:
    engine = Engine()
    heard = _listener(engine, worker_key(WORKER))

    engine.hear(manifest(worker=WORKER))
    assert _heard(heard) == []
    engine.hear(manifest(worker=WORKER, wants_withdrawals=True))

    assert _heard(heard) == [Withdrawals(tokens=(), is_complete=True)]


def test_a_claimed_attempt_that_is_lost_is_not_to_be_begun_until_a_lease_after_somebody_met_it() -> None:
    engine = Engine()
    (token,) = _published(engine, 1)
    heard = _listener(engine, ALL_WORKERS_KEY)
    engine.claim(token)
    engine.lose(token)
    withdrawing = Withdrawing(engine.broker)

    withdrawing.tell_new()
    withdrawing.tell_new()
    assert _heard(heard) == [Withdrawals(tokens=(), lost=(token,))]
    engine.relay.end_leases()
    assert queued_lost() == [token]
    engine.say(Withdrawn(token=token, worker=WORKER, at=engine.clock()).to_bytes())
    engine.take_replies()
    engine.relay.end_leases()
    assert queued_lost() == [token]
    Attempt.objects.filter(token=token).update(lease_until=Now() - timedelta(seconds=1))
    engine.relay.end_leases()

    assert queued_lost() == []


def test_what_is_withdrawn_is_broadcast_once_and_by_a_new_task_publisher_again() -> None:
    engine = Engine()
    first, second = _published(engine, 2)
    heard = _listener(engine, ALL_WORKERS_KEY)
    withdrawing = Withdrawing(engine.broker)

    withdrawing.tell_new()
    assert _heard(heard) == []
    for token in (first, second):
        _withdraw(token)
        withdrawing.tell_new()
        withdrawing.tell_new()
    Withdrawing(engine.broker).tell_new()

    assert [each.tokens for each in _heard(heard)] == [(first,), (second,), (first, second)]


def test_what_the_broker_does_not_take_is_told_later() -> None:
    (token,) = _published(Engine(), 1)
    _withdraw(token)
    bare = MemoryBroker()
    withdrawing = Withdrawing(bare)

    withdrawing.tell_new()
    bare.declare(exchanges=EXCHANGES)
    heard = bare.listen(CONTROL_EXCHANGE, binding_keys=[ALL_WORKERS_KEY])
    withdrawing.tell_new()

    assert [each.tokens for each in _heard(heard)] == [(token,)]


def test_whoever_is_told_learns_of_the_store_once_the_mark_is_there() -> None:
    engine = Engine()
    heard = _listener(engine, ALL_WORKERS_KEY)
    store = MemoryStore()
    marking = Marking(store, clock=engine.clock)
    withdrawing = Withdrawing(engine.broker, mark=lambda: marking.mark)

    withdrawing.tell_store()
    is_new = marking.renew()
    withdrawing.tell_store()
    again = marking.renew()
    before, told = _heard(heard)

    assert (is_new, again) == (True, False)
    assert before.store is None
    assert told.store is not None
    assert told.store.url == store.url
    assert store.read(told.store.claim)


def test_a_mark_is_renewed_each_hour_and_taken_away_at_the_end() -> None:
    engine = Engine()
    store = MemoryStore()
    marking = Marking(store, clock=engine.clock)
    marking.renew()
    mark = marking.mark
    store.delete([each.key for each in store.list(MARKS)])

    engine.clock.advance(3601)
    is_new = marking.renew()

    assert not is_new
    assert marking.mark == mark
    assert len(list(store.list(MARKS))) == 1
    marking.remove()
    assert list(store.list(MARKS)) == []


def test_a_store_that_is_away_leaves_no_mark_and_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    marking = Marking(open_store((tmp_path / "file").as_uri()), clock=Engine().clock)

    assert not marking.renew()
    (tmp_path / "file").unlink()

    assert marking.mark is None
    assert marking.renew()


def test_a_worker_whose_id_is_too_long_for_a_key_keeps_no_other_one_waiting() -> None:
    engine = Engine()
    heard = _listener(engine, worker_key(WORKER))

    Withdrawing(engine.broker).tell_all_to(["w" * 255, WORKER])

    assert len(_heard(heard)) == 1


def _published(engine: Engine, count: int) -> list[str]:
    for _ in range(count):
        engine.accept("scrape")
    engine.relay.start()
    return list(Attempt.objects.order_by("number").values_list("token", flat=True))


def _withdraw(*tokens: str) -> None:
    Attempt.objects.filter(token__in=tokens).update(status="withdrawn")


def _listener(engine: Engine, key: str) -> Subscription:
    return engine.broker.listen(CONTROL_EXCHANGE, binding_keys=[key])


def _heard(subscription: Subscription) -> list[Withdrawals]:
    deliveries = subscription.take(at_most=100, wait_s=0.05)
    subscription.ack(deliveries)
    return [Withdrawals.parse(delivery.body) for delivery in deliveries]
