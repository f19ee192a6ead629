"""Fetching `data_url` into the store: once a run, by the Task Publisher, from addresses that it may reach."""

import ipaddress
import logging
import socket
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from shepherd.errors import DataUnavailableError, InvalidInputError
from shepherd.store.key import segment
from shepherd.store.port import Store
from shepherd.wire.value import ClaimCheck
from shepherd.worker.media import BYTES, media_type_of

logger = logging.getLogger(__name__)

_REDIRECTS: Final = 3
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_TRIES: Final = 3
_TIMEOUTS: Final = {"connect": 10.0, "read": 60.0, "write": 10.0, "pool": 10.0}
#: In bytes; larger files come by way of the store.
SIZE_LIMIT: Final = 64 * 1024**3
#: In seconds, for one try.
TIME_LIMIT_S: Final = 3600.0


class AddressRefusedError(InvalidInputError):
    """`data_url` leads to an address that isn't for everyone."""

    code = "address_refused"


class Downloader:
    """Fetches files over http and https. Safe to use from several threads."""

    def __init__(self, store: Store, *, allow: Collection[str], size_limit: int = SIZE_LIMIT) -> None:
        self._store = store
        self._backend = _CheckedBackend(frozenset(allow))
        self._size_limit = size_limit

    def fetch(self, url: str, *, run_id: str) -> ClaimCheck:
        """Return the claim check of the file that a URL names, after up to three tries.

        Raises:
            AddressRefusedError: It leads to a private, loopback or link-local address that no setting allows.
            InvalidInputError: It can't be fetched by anybody: no such scheme, too large, too many redirects.
            DataUnavailableError: The server didn't answer, or answered with an error; it may later.
            StoreUnavailableError: The store didn't take the file.
        """
        for tries in range(1, _TRIES + 1):
            try:
                return self._fetch_once(url, run_id)
            except DataUnavailableError as error:
                if tries == _TRIES:
                    raise
                logger.warning("data_url.retry", extra={"run": run_id, "reason": str(error)})
                time.sleep(2.0 ** (tries - 1))
        raise AssertionError

    def _fetch_once(self, url: str, run_id: str) -> ClaimCheck:
        try:
            with ExitStack() as stack:
                pool = stack.enter_context(httpcore.ConnectionPool(network_backend=self._backend, retries=0))
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shepherd-data-")))
                response, final = self._open(stack, pool, url)
                name = segment(unquote(PurePosixPath(urlsplit(final).path).name) or "data")
                self._save(response, folder / "data")
                media_type = _media_type(response.headers, name)
                return self._store.put(folder / "data", key=f"runs/{run_id}/data_url/{name}", media_type=media_type)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise DataUnavailableError(f"{url} can't be fetched: {reason}") from error

    def _open(self, stack: ExitStack, pool: httpcore.ConnectionPool, url: str) -> tuple[httpcore.Response, str]:
        for _ in range(_REDIRECTS + 1):
            _check_scheme(url)
            stream = pool.stream("GET", url, headers=_HEADERS, extensions={"timeout": _TIMEOUTS})
            response = stack.enter_context(stream)
            if response.status not in _REDIRECT_STATUSES:
                _check_status(response.status, url)
                return response, url
            url = urljoin(url, _header(response.headers, b"location"))
        raise InvalidInputError.at("data_url", f"leads through more than {_REDIRECTS} redirects")

    def _save(self, response: httpcore.Response, path: Path) -> None:
        deadline = time.monotonic() + TIME_LIMIT_S
        size = 0
        with path.open("wb") as file:
            for chunk in response.iter_stream():
                size += len(chunk)
                if size > self._size_limit:
                    raise InvalidInputError.at("data_url", f"is larger than {self._size_limit} bytes")
                if time.monotonic() > deadline:
                    raise DataUnavailableError(f"the download took more than {TIME_LIMIT_S:g} s")
                file.write(chunk)
        expected = _header(response.headers, b"content-length")
        if expected.isdigit() and int(expected) != size:
            raise DataUnavailableError(f"the download ended after {size} of {expected} bytes")


#: Without compression: a small answer must not become a large file.
_HEADERS: Final = [(b"Accept-Encoding", b"identity"), (b"User-Agent", b"shepherd")]


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked: a name that changes its address in between gains nothing."""

    def __init__(self, allow: frozenset[str]) -> None:
        self._allow = allow
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        is_allowed = not self._allow.isdisjoint({host, f"{host}:{port}"})
        for address in addresses:
            if not is_allowed and not is_public(str(address)):
                reason = f"leads to {host} ({address}), which isn't public; SHEPHERD_DATA_URL_ALLOW can allow it"
                raise AddressRefusedError.at("data_url", reason)
        return self._inner.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet: not private, loopback, link-local or reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return parsed.is_global and not parsed.is_multicast and (mapped is None or is_public(str(mapped)))


def _check_scheme(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme not in {"http", "https"}:
        raise InvalidInputError.at("data_url", f"leads to {scheme}:, but only http and https are fetched")


def _check_status(status: int, url: str) -> None:
    if status in {408, 425, 429} or status >= 500:
        raise DataUnavailableError(f"{url} answered {status}")
    if not 200 <= status < 300:
        raise InvalidInputError.at("data_url", f"{url} answered {status}")


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _media_type(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    stated = _header(headers, b"content-type").partition(";")[0].strip().lower()
    return stated or media_type_of(name) or BYTES
