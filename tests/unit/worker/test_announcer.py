"""What a worker says of itself while the broker comes and goes, over the shipped fake."""

from datetime import UTC, datetime

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.topology import ALL_WORKERS_KEY, CONTROL_EXCHANGE, EXCHANGES, STANDING_QUEUES
from shepherd.wire.beat import Beat
from shepherd.wire.manifest import Manifest
from shepherd.worker.announcer import Announcer
from tests.support.engine import manifest
from tests.support.waiting import wait_until


def told() -> tuple[Manifest, Beat]:
    beat = Beat(worker="w", at=datetime.now(UTC), free_slots=1, holds=(), idle_s=0.0)
    return Manifest.parse(manifest("scrape")), beat


def test_a_broker_that_is_away_is_not_waited_for_and_told_as_soon_as_it_is_back() -> None:
    broker = MemoryBroker()
    broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
    control = broker.listen(CONTROL_EXCHANGE, binding_keys=[ALL_WORKERS_KEY])
    announcer = Announcer(broker, control, beat_s=1000.0, describe=told, withdraw=lambda *_: None)

    broker.server.go_down()
    assert not announcer.announce()
    announcer.start()
    broker.server.come_back()
    wait_until(lambda: broker.published, timeout_s=20, what="the first word")
    announcer.close()

    assert [message.type for message in broker.published] == ["manifest", "beat"]
