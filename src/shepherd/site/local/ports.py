"""Whether the ports are free, asked before anything starts."""

import socket
from collections.abc import Mapping, Sequence

from shepherd.errors import ConfigurationError
from shepherd.site.local.config import HOST


def refuse_taken(ports: Mapping[str, Sequence[int]]) -> None:
    """Check that nothing listens on these ports; `ports` names the variable that moves each.

    Raises:
        ConfigurationError: Some are taken; the text names them all, and the variables.
    """
    taken = [(variable, port) for variable, numbers in ports.items() for port in numbers if not _is_free(port)]
    if taken:
        lines = (
            f"{variable}: port {port} of {HOST} is taken; set {variable} to another one" for variable, port in taken
        )
        raise ConfigurationError("\n".join(lines))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that are fading away don't keep a server from starting.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
