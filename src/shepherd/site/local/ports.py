"""Whether the ports are free and services of others answer, asked before anything starts."""

import socket
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from shepherd.errors import ConfigurationError
from shepherd.site.local.config import HOST

_PATIENCE_S: Final = 3.0
_DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671, "http": 80, "https": 443}


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


def describe_given(urls: Mapping[str, str]) -> list[str]:
    """Return a sentence for each service that is used in place of a private one; `urls` has them by their variable."""
    return [_described(variable, each) for variable, url in urls.items() for each in _parts(url)]


def _parts(url: str) -> Sequence[str]:
    # Several nodes of one broker; no other service has addresses with commas between.
    return [each.strip() for each in url.split(",")] if url.startswith("amqp") else [url]


def _described(variable: str, url: str) -> str:
    parts = urlsplit(url)
    try:
        address = (parts.hostname or HOST, parts.port or _DEFAULT_PORTS.get(parts.scheme, 0))
        with socket.create_connection(address, timeout=_PATIENCE_S):
            answer = ""
    except (OSError, ValueError) as error:
        answer = f" It doesn't answer: {error}. Unset {variable} to have a private one."
    # Without the user and the password.
    return f"{variable} is set: {parts.netloc.rpartition('@')[2]} is used in place of a private service.{answer}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that are fading away don't keep a server from starting.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
