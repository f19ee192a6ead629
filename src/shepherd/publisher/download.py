"""`data_url` over http and https: from addresses that are for everyone, going on where a connection broke."""

import logging
import re
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpcore

from shepherd.domain.addresses import is_public
from shepherd.errors import AddressRefusedError, DataUnavailableError, InvalidInputError
from shepherd.pipelines.data_urls import DataSources, data_url_fault, is_allowed
from shepherd.publisher.draft import Draft, Fetched
from shepherd.publisher.timed_stream import TimedStream

logger = logging.getLogger(__name__)

_REDIRECTS: Final = 3
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
#: Without a byte more.
_TRIES: Final = 3
_TIMEOUTS: Final = {"connect": 10.0, "read": 60.0, "write": 10.0, "pool": 10.0}
#: Without compression: a small answer must not become a large file.
_HEADERS: Final = ((b"Accept-Encoding", b"identity"), (b"User-Agent", b"shepherd"))
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: A name of an encoding; the longest registered one has 45 characters (IANA).
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([\w.:+-]{1,45})(?![\w.:+-])", re.IGNORECASE | re.ASCII)
_PARTIAL: Final = 206
_RANGE_REFUSED: Final = 416

Headers = Sequence[tuple[bytes, bytes]]


class Downloader:
    """Safe to use from several threads."""

    def __init__(self, *, allow: Collection[str], pause_s: float = 1.0) -> None:
        self._allow = frozenset(allow)
        #: Before the second try; twice as long before each next one.
        self._pause_s = pause_s

    def download(self, url: str, draft: Draft) -> Fetched:
        """Fill the draft with what a URL answers, going on where a connection broke if the server lets us.

        Raises:
            AddressRefusedError: It leads to a private, loopback or link-local address that no setting allows.
            InvalidInputError: It can't be fetched by anybody: too large, too many redirects, not there.
            DataUnavailableError: The server didn't answer three times in a row, or the time is over.
        """
        answer = _Answer(draft)
        tries = 0
        while True:
            before = draft.size
            try:
                return self._go_on(url, answer)
            except DataUnavailableError as error:
                tries = 1 if draft.size > before else tries + 1
                pause_s = self._pause_s * 2.0 ** (tries - 1)
                if tries >= _TRIES or draft.left_s <= pause_s:
                    raise
                logger.warning("data_url.retry", extra={"url": url, "have": draft.size, "reason": str(error)})
                draft.pause(pause_s)

    def _go_on(self, url: str, answer: "_Answer") -> Fetched:
        try:
            with ExitStack() as stack:
                backend = _CheckedBackend(self._allow, answer.draft)
                pool = stack.enter_context(httpcore.ConnectionPool(network_backend=backend, retries=0))
                response, final = self._open(stack, pool, url, answer)
                answer.take(response, final)
                name = unquote(PurePosixPath(urlsplit(final).path).name)
                return Fetched(name=name, media_type=_media_type(response.headers))
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise DataUnavailableError(f"{url} can't be fetched: {reason}") from error

    def _open(
        self, stack: ExitStack, pool: httpcore.ConnectionPool, url: str, answer: "_Answer"
    ) -> tuple[httpcore.Response, str]:
        for _ in range(_REDIRECTS + 1):
            # Nothing but http: a redirect must not lead to a file or a bucket, whatever those settings allow.
            if reason := data_url_fault(url, DataSources(allow=self._allow)):
                raise AddressRefusedError.at("data_url", reason)
            stream = pool.stream(
                "GET", _sendable(url), headers=[*_HEADERS, *answer.wanted()], extensions={"timeout": _TIMEOUTS}
            )
            response = stack.enter_context(stream)
            if response.status not in _REDIRECT_STATUSES:
                return response, url
            url = urljoin(url, _header(response.headers, b"location"))
        raise InvalidInputError.at("data_url", f"leads through more than {_REDIRECTS} redirects")


class _Answer:
    """What there is of one file, over all tries."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        #: What the server calls this very version; empty where it can't be asked for a part of it.
        self._tag = ""
        self._total = ""

    def wanted(self) -> Headers:
        """Return the headers that ask for the rest only, and for all of it where it has changed since."""
        if not self.draft.size or not self._tag:
            return ()
        return ((b"Range", f"bytes={self.draft.size}-".encode()), (b"If-Range", self._tag.encode("latin-1")))

    def take(self, response: httpcore.Response, url: str) -> None:
        is_asked = bool(self.wanted())
        if is_asked and response.status == _PARTIAL:
            self._check_part(response.headers)
        elif is_asked and response.status == _RANGE_REFUSED:
            self._begin_anew("the server has no such part any more")
        else:
            _check_status(response.status, url)
            self.draft.restart()
            self._tag = _strong_tag(response.headers)
            self._total = _header(response.headers, b"content-length")
            if self._total.isdigit():
                self.draft.check(int(self._total))
        for chunk in response.iter_stream():
            self.draft.write(chunk)
        if self._total.isdigit() and int(self._total) != self.draft.size:
            self._begin_anew(f"the download ended after {self.draft.size} of {self._total} bytes")

    def _check_part(self, headers: Headers) -> None:
        """Compare a part with what was asked for: of another file it would make a file that never was."""
        found = _RANGE.fullmatch(_header(headers, b"content-range"))
        tag = _strong_tag(headers)
        is_next = found is not None and int(found[1]) == self.draft.size
        is_of_same = found is not None and found[3] in {"*", self._total or found[3]} and tag in {"", self._tag}
        if not is_next or not is_of_same:
            self._begin_anew("the server answered with a part of something else")

    def _begin_anew(self, reason: str) -> None:
        self.draft.restart()
        self._tag = ""
        raise DataUnavailableError(reason)


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked: a name that changes its address in between gains nothing."""

    def __init__(self, allow: frozenset[str], draft: Draft) -> None:
        self._allow = allow
        self._draft = draft
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        addresses = list(dict.fromkeys(found))
        if not is_allowed(host, port, self._allow):
            for address in addresses:
                if not is_public(address):
                    reason = f"leads to {host} ({address}), which isn't public; SHEPHERD_DATA_URL_ALLOW can allow it"
                    raise AddressRefusedError.at("data_url", reason)
        for address in addresses[:-1]:
            try:
                return self._connected(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connected(addresses[-1], port, timeout, local_address, socket_options)

    def _connected(self, *place: Any) -> httpcore.NetworkStream:
        return TimedStream(self._inner.connect_tcp(*place), self._draft)


def _sendable(url: str) -> str:
    """Return an address as it is sent: names in their ASCII form, other characters escaped."""
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("idna").decode() if ":" not in (parts.hostname or "") else ""
    except UnicodeError:
        raise InvalidInputError.at("data_url", "names a host that can't be") from None
    port = f":{parts.port}" if parts.port else ""
    place = f"{host}{port}" if host else parts.netloc
    query = f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
    return f"{parts.scheme}://{place}{quote(parts.path, safe=_KEPT)}{query}"


#: Everything in ASCII that may stand in an address, and `%` of what is escaped already.
_KEPT: Final = "!#$%&'()*+,/:;=?@[]~"


def _check_status(status: int, url: str) -> None:
    if status in {408, 425, 429} or status >= 500:
        raise DataUnavailableError(f"{url} answered {status}")
    if not 200 <= status < 300 or status == _PARTIAL:
        raise InvalidInputError.at("data_url", f"{url} answered {status}")


def _strong_tag(headers: Headers) -> str:
    tag = _header(headers, b"etag")
    return tag if tag.startswith('"') else ""


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _media_type(headers: Headers) -> str:
    """Return what the server says that it is, with the charset alone of all parameters: whoever reads it needs that."""
    stated = _header(headers, b"content-type")
    kind, charset = stated.partition(";")[0].strip().lower(), _CHARSET.search(stated)
    return f"{kind}; charset={charset[1].lower()}" if kind and charset else kind
