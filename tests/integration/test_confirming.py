"""Writing down what the broker has confirmed, while workers answer for the same attempts."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import connections, transaction

from shepherd.pipelines import recording, unconfirmed
from shepherd.pipelines.models import Attempt
from shepherd.wire.envelope import Started
from tests.support.engine import Engine

pytestmark = pytest.mark.usefixtures("postgres_database")


def test_confirms_and_replies_that_come_at_once_never_wait_for_each_other() -> None:
    engine = Engine()
    for _ in range(200):
        engine.accept("scrape")
    engine.relay.start()
    tokens = list(Attempt.objects.values_list("token", flat=True))
    chance = random.Random(1)  # No secret.
    some = [chance.sample(tokens, 100) for _ in range(60)]
    faults: list[Exception] = []

    def confirm() -> None:
        for _ in range(60):
            with transaction.atomic():
                locked = list(Attempt.objects.order_by("pk").select_for_update())
                Attempt.objects.filter(pk__in=[each.pk for each in locked]).update(confirmed_at=None)
            unconfirmed.confirm(tokens, now=datetime.now(UTC))

    def record(batches: list[list[str]]) -> None:
        for batch in batches:
            now = datetime.now(UTC)
            recording.record([Started(token=token, worker="w", at=now) for token in batch], now=now)

    _at_once(faults, confirm, lambda: record(some[:30]), lambda: record(some[30:]))

    assert faults == []


def _at_once(faults: list[Exception], *functions: Callable[[], None]) -> None:
    def call(function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001  # Whatever it is, the test says it.
            faults.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
