"""Free ports for services of the tests."""

import random
import socket
from contextlib import ExitStack

#: Below the ports that the kernel hands to outgoing connections: one of those could take a port first.
_FIRST, _LAST = 20_000, 32_000
# Not the tests' own generator, which is seeded: two test runs with one seed would choose the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    """Return a loopback port that nothing listens on right now."""
    return free_ports(1)


def free_ports(number: int) -> int:
    """Return the first of so many loopback ports in a row that nothing listens on right now."""
    while True:
        first = _random.randint(_FIRST, _LAST)
        with ExitStack() as held:
            try:
                for port in range(first, first + number):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
