"""Which Task Publisher drives a run: one at a time, another one once it is gone, and never a former one."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from shepherd.pipelines import services
from shepherd.pipelines.models import Run
from shepherd.pipelines.ownership import Owner
from shepherd.wire.envelope import TaskError
from tests.support.engine import Engine, statuses

pytestmark = pytest.mark.usefixtures("database")

LEASE = timedelta(seconds=30)
FIRST = Owner(name="first", lease=LEASE)
SECOND = Owner(name="second", lease=LEASE)


def _expire(run: Run) -> None:
    Run.objects.filter(number=run.number).update(owned_until=Now() - timedelta(seconds=1))


def _led_run(engine: Engine) -> Run:
    run = engine.accept("scrape", "upload")
    engine.relay.start()
    return run


def test_a_run_has_one_owner_as_long_as_this_one_renews() -> None:
    run = _led_run(Engine())

    epochs = FIRST.take([run.number])

    assert list(epochs) == [run.number]
    assert SECOND.take([run.number]) == {}
    _expire(run)
    assert FIRST.renew(epochs) == set()
    assert SECOND.take([run.number]) == {}


def test_another_one_takes_over_when_the_owner_is_silent_for_a_lease() -> None:
    run = _led_run(Engine())
    before = FIRST.take([run.number])
    _expire(run)

    after = SECOND.take([run.number])

    assert after[run.number] > before[run.number]
    assert FIRST.renew(before) == {run.number}
    assert SECOND.renew(after) == set()


def test_another_one_takes_over_at_once_what_was_given_up() -> None:
    run = _led_run(Engine())
    FIRST.take([run.number])

    SECOND.give_up()
    assert SECOND.take([run.number]) == {}
    FIRST.give_up()

    assert list(SECOND.take([run.number])) == [run.number]


def test_who_is_alone_waits_for_nobody() -> None:
    run = _led_run(Engine())
    FIRST.take([run.number])

    assert list(Owner(name="second", lease=LEASE, is_alone=True).take([run.number])) == [run.number]


def test_what_a_former_owner_writes_changes_nothing() -> None:
    engine = Engine(leads=frozenset({"scrape"}))
    run = _led_run(engine)
    before = FIRST.take([run.number])[run.number]
    _expire(run)
    after = SECOND.take([run.number])[run.number]
    task = run.tasks.get(position=0).number
    error = TaskError(code="publisher_failed", message="of a former owner")

    engine.relay.publish(task, epoch=before)
    engine.relay.fail(run.number, error, task_number=task, epoch=before)
    assert statuses(run) == ["running", "pending", "pending"]
    engine.relay.publish(task, epoch=after)

    assert statuses(run) == ["running", "published", "pending"]
    engine.relay.fail(run.number, error, task_number=task, epoch=after)
    assert statuses(run) == ["failed", "failed", "pending"]


def test_a_run_that_was_resumed_is_nobodys_and_its_former_owner_hears_of_it() -> None:
    engine = Engine()
    run, other = _led_run(engine), _led_run(engine)
    ana = User.objects.get(username="ana")
    epochs = FIRST.take([run.number, other.number])

    services.cancel(run.number, by=ana, now=engine.clock())
    assert FIRST.resumed(epochs) == set()
    services.resume(run.number, contexts={}, by=ana, now=engine.clock())

    assert FIRST.resumed(epochs) == {run.number}
    again = SECOND.take([run.number])
    assert FIRST.resumed(epochs) == set()
    assert SECOND.resumed(again) == set()
    FIRST.give_up()
    assert FIRST.resumed(epochs) == set()
