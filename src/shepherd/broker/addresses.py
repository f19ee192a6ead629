"""The addresses in SHEPHERD_BROKER_URL: of one broker, or of several nodes of one cluster."""

from urllib.parse import unquote, urlsplit

from shepherd.errors import ConfigurationError

_SCHEMES = ("amqp", "amqps")
_PORTS = {"amqp": 5672, "amqps": 5671}


def broker_addresses(text: str, *, variable: str = "SHEPHERD_BROKER_URL") -> tuple[str, ...]:
    """Return the URLs of a comma-separated list, in its order. A comma within one is written `%2C`.

    Raises:
        ConfigurationError: One can't be used. The text says which by its place, since the URL itself holds a password.
    """
    urls = tuple(url.strip() for url in text.split(","))
    for number, url in enumerate(urls, 1):
        if reason := _fault(url):
            which = f"address {number}" if len(urls) > 1 else "it"
            raise ConfigurationError(
                f"{variable}: must be amqp://user:password@host:port/ or amqps://…, several with commas between; "
                f"{which} {reason}"
            )
    if len({vhost_of(url) for url in urls}) > 1:
        raise ConfigurationError(f"{variable}: all addresses must name the same virtual host, as nodes of one cluster")
    return urls


def _fault(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in _SCHEMES:
        return f"begins with {parts.scheme!r}"
    if port == 0 or not parts.hostname:
        return "names no host" if not parts.hostname else "has the port 0"
    return ""


def hosts_of(text: str) -> tuple[str, ...]:
    """Return `host:port` of each address, without users and passwords."""
    return tuple(_host(url) for url in broker_addresses(text))


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"


def vhost_of(url: str) -> str:
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"
