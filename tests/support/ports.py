"""Free ports for services of the tests."""

import socket
from contextlib import ExitStack


def free_port() -> int:
    """Return a loopback port that nothing listens on right now."""
    return free_ports(1)


def free_ports(number: int) -> int:
    """Return the first of so many loopback ports in a row that nothing listens on right now."""
    while True:
        with ExitStack() as held:
            first = _bound(held, 0)
            try:
                for port in range(first + 1, first + number):
                    _bound(held, port)
            except (OSError, OverflowError):
                continue
            return first


def _bound(held: ExitStack, port: int) -> int:
    probe = held.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    bound: int = probe.getsockname()[1]
    return bound
