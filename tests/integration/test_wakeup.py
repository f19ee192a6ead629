"""The Task Publisher hears of what was accepted at once, also from a process that ends right after."""

import subprocess
import sys

from shepherd.broker import connect
from shepherd.broker.topology import CONTROL_EXCHANGE, EXCHANGES, PUBLISHER_KEY
from tests.support.given_brokers import BrokerUnderTest
from tests.support.waiting import wait_until

_RINGS = """
import sys
from shepherd.broker.rabbitmq import RabbitBroker
from shepherd.pipelines.wakeup import Bell

Bell(lambda: RabbitBroker(sys.argv[1], name="command")).ring()
"""


def test_a_command_that_ends_at_once_is_heard(broker_node: BrokerUnderTest) -> None:
    broker = connect(broker_node.url, name="publisher")
    broker.declare(exchanges=EXCHANGES)
    heard = broker.listen(CONTROL_EXCHANGE, binding_keys=[PUBLISHER_KEY])
    wait_until(lambda: heard.generation, timeout_s=20, what="a consumer")

    # By name, as in most set-ups: to look one up takes a thread of a pool.
    by_name = broker_node.url.replace("127.0.0.1", "localhost")
    subprocess.run([sys.executable, "-c", _RINGS, by_name], check=True, timeout=60)

    (wake,) = heard.take(at_most=9, wait_s=5)
    assert b"wake" in wake.body
    broker.close()


def test_a_command_ends_where_there_is_no_broker() -> None:
    subprocess.run([sys.executable, "-c", _RINGS, "amqp://127.0.0.1:1/"], check=True, timeout=60)
