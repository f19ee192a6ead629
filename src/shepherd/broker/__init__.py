"""The message broker: `port.py` says what it does, `connect` makes one."""

from urllib.parse import urlsplit

from shepherd.broker.port import Broker
from shepherd.errors import ConfigurationError


def connect(url: str, *, name: str) -> Broker:
    """Open a connection, which is then built and rebuilt in the background: this doesn't wait for it.

    `name` is what operators see of it. `memory:NAME` is the fake, one server in this process for the same URL.

    Raises:
        ConfigurationError: The URL's scheme is none of amqp, amqps and memory.
    """
    match urlsplit(url).scheme:
        case "amqp" | "amqps":
            # Imported here: the client takes 0.2 s, and most processes know their broker by name only.
            from shepherd.broker.rabbitmq import RabbitBroker

            return RabbitBroker(url, name=name)
        case "memory":
            from shepherd.broker.memory import MemoryBroker, shared_server

            return MemoryBroker(shared_server(url), name=name)
        case scheme:
            raise ConfigurationError(f"SHEPHERD_BROKER_URL begins with {scheme!r}, not with amqp, amqps or memory")
