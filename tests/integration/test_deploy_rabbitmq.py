"""What `deploy/rabbitmq/` promises, on real nodes."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings

from shepherd.broker import connect
from shepherd.broker.permissions import TASK_PUBLISHER, WEB, WORKER, Permissions
from shepherd.broker.policies import RECOMMENDED
from shepherd.broker.port import Broker, Message
from shepherd.broker.topology import (
    ALL_WORKERS_KEY,
    BEATS,
    CONTROL_EXCHANGE,
    DEAD_EXCHANGE,
    EXCHANGES,
    LOGS,
    PUBLISHER_KEY,
    REPLIES,
    STANDING_QUEUES,
    task_queue_spec,
)
from shepherd.errors import BrokerUnavailableError, ConfigurationError
from shepherd.site.doctor.ctl import RabbitmqctlFacts
from shepherd.site.doctor.examination import examine
from shepherd.site.doctor.facts import Grant
from shepherd.site.doctor.finding import Level
from shepherd.site.doctor.situation import look
from shepherd.site.local.broker_node import BrokerNode
from tests.support.broker import broker_node_running
from tests.support.deployment import FOLDER, Urls, set_up, settings_of
from tests.support.ports import free_port
from tests.support.waiting import wait_until

#: Long enough that what must not come would have come.
SOON_S = 0.5
_TASK = task_queue_spec("some_task")


@pytest.fixture(scope="module")
def node() -> Iterator[BrokerNode]:
    """A node with the configuration that servers get, but for its address."""
    told = settings_of(FOLDER / "rabbitmq.conf")
    del told["listeners.tcp.default"]
    with broker_node_running(config={**told, "disk_free_limit.absolute": "50MB"}) as node:
        yield node


@pytest.fixture(scope="module")
def urls(node: BrokerNode) -> Urls:
    made = set_up(node)
    assert made is not None
    return made


@pytest.fixture
def publisher(urls: Urls) -> Iterator[Broker]:
    broker = connected(urls.publisher)
    broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, _TASK])
    yield broker
    broker.close()


@pytest.fixture
def worker(urls: Urls, publisher: Broker) -> Iterator[Broker]:
    broker = connected(urls.worker)
    yield broker
    broker.close()


@pytest.fixture
def web(urls: Urls, publisher: Broker) -> Iterator[Broker]:
    broker = connected(urls.web)
    yield broker
    broker.close()


def connected(url: str) -> Broker:
    broker = connect(url, name="test")
    assert broker.wait_connected(timeout_s=20)
    return broker


def to(queue: str, *, exchange: str = "") -> Message:
    return Message(routing_key=queue, exchange=exchange, body=b"{}", is_mandatory=not exchange)


def test_the_configuration_of_servers_is_taken_and_the_doctor_agrees(
    node: BrokerNode, urls: Urls, publisher: Broker, sqlite_database: str, tmp_path: Path
) -> None:
    config = replace(
        settings.SHEPHERD, broker_url=urls.publisher, broker_ctl=str(node.ctl_file), store_url=tmp_path.as_uri()
    )

    found = examine(look(config))

    bad = {each.check for each in found if each.finding.level is not Level.OK}
    # No Task Publisher consumes here, and `some_task` was announced by nobody.
    assert bad - {"prefect"} == {"task publisher", "orphans"}
    assert RabbitmqctlFacts([str(node.ctl_file)]).read(vhost="shepherd").limits is not None


def test_users_get_what_the_code_says_they_need_and_a_second_run_changes_nothing(node: BrokerNode, urls: Urls) -> None:
    before = RabbitmqctlFacts([str(node.ctl_file)]).read(vhost="shepherd")

    assert set_up(node) is None

    after = RabbitmqctlFacts([str(node.ctl_file)]).read(vhost="shepherd")
    assert after.grants == before.grants
    assert set(after.grants or ()) == {
        _grant("shepherd-publisher", TASK_PUBLISHER),
        _grant("shepherd-worker", WORKER),
        _grant("shepherd-web", WEB),
    }
    policies = {(each.name, each.pattern): each.definition for each in after.policies or ()}
    assert policies == {(each.name, each.pattern): each.definition for each in RECOMMENDED}


def _grant(user: str, permissions: Permissions) -> Grant:
    return Grant(user=user, configure=permissions.configure, write=permissions.write, read=permissions.read)


def test_a_worker_may_take_tasks_answer_listen_and_hand_in_dead_letters(publisher: Broker, worker: Broker) -> None:
    intake = worker.intake([_TASK.name])
    control = worker.listen(CONTROL_EXCHANGE, binding_keys=[ALL_WORKERS_KEY, "worker.me"])
    assert publisher.publish([to(_TASK.name)]) == [None]

    delivery = intake.take(wait_s=20)
    assert delivery is not None
    answers = worker.publish([to(REPLIES), to(BEATS), to(LOGS), to("", exchange=DEAD_EXCHANGE)])
    intake.ack(delivery)

    assert answers == [None] * 4

    def hears() -> bool:
        publisher.publish([to(ALL_WORKERS_KEY, exchange=CONTROL_EXCHANGE)])
        return bool(control.take(at_most=1, wait_s=SOON_S))

    wait_until(hears, timeout_s=20, what="a control message")


def test_a_worker_may_neither_declare_nor_take_replies_nor_speak_for_the_task_publisher(worker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="ACCESS_REFUSED"):
        worker.declare(queues=[_TASK])
    [refused] = worker.publish([to(ALL_WORKERS_KEY, exchange=CONTROL_EXCHANGE)])
    assert worker.publish([to(REPLIES)]) == [None]

    assert isinstance(refused, BrokerUnavailableError)
    assert worker.subscribe(REPLIES, prefetch=1).take(at_most=1, wait_s=SOON_S) == []
    spy = worker.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])
    assert spy.take(at_most=1, wait_s=SOON_S) == []


def test_the_web_server_may_wake_the_task_publisher_and_nothing_else(publisher: Broker, web: Broker) -> None:
    woken = publisher.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])

    def wakes() -> bool:
        assert web.publish([to(PUBLISHER_KEY, exchange=CONTROL_EXCHANGE)]) == [None]
        return bool(woken.take(at_most=1, wait_s=SOON_S))

    wait_until(wakes, timeout_s=20, what="a wake-up")
    for message in (to(REPLIES), to(_TASK.name), to(ALL_WORKERS_KEY, exchange=CONTROL_EXCHANGE)):
        [refused] = web.publish([message])
        assert isinstance(refused, BrokerUnavailableError)


def test_tls_with_an_authority_of_ones_own_works_and_a_stranger_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    for authority in (folder, tmp_path / "stranger"):
        subprocess.run([FOLDER / "certificates.sh", authority, "localhost"], check=True, capture_output=True)
    told = settings_of(FOLDER / "tls.conf")
    port = free_port()
    own = {
        "listeners.ssl.default": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.pem"),
        "ssl_options.certfile": str(folder / "localhost.pem"),
        "ssl_options.keyfile": str(folder / "localhost.key"),
    }
    # The node's own listener stays, since its fixture waits for it.
    del told["listeners.tcp"]
    with broker_node_running(config={**told, **own}):
        url = f"amqps://guest:guest@localhost:{port}/?cafile={folder / 'ca.pem'}"
        broker = connected(url)
        broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES])
        answer = broker.publish([to(REPLIES)])
        broker.close()
        stranger = connect(url.replace(str(folder), str(tmp_path / "stranger")), name="test")
        with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.server_info(timeout_s=5)
        stranger.close()

    assert answer == [None]


def test_nothing_is_installed_for_everybody_to_write() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}

    assert (
        "install -o root -g rabbitmq -m 640 deploy/rabbitmq/rabbitmq.conf /etc/rabbitmq/rabbitmq.conf"
        in (texts["rabbitmq.conf"])
    )
    assert settings_of(FOLDER / "rabbitmq.conf")["consumer_timeout"] == "10800000"
    assert not any("chmod 777" in text or "-m 777" in text for text in texts.values())
