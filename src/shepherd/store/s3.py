"""A bucket of S3, or of what speaks like it: for servers that share no file system.

The client reads the variables that all tools of this kind read: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL and others.
"""

import importlib.util
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from shepherd.errors import ConfigurationError, InvalidInputError, StoreUnavailableError
from shepherd.store.key import checked, claimed
from shepherd.store.port import StoredObject
from shepherd.store.verify import Digest, chunks, compare_size
from shepherd.wire.value import ClaimCheck

if TYPE_CHECKING:
    import obstore.store

#: Bytes of a part: the least that S3 takes, more where 10,000 parts (its most) would be too few.
_PART: Final = 5 * 1024 * 1024
_MOST_PARTS: Final = 9_000
#: Parts in memory and on the way at once.
_AT_ONCE: Final = 4
_CHUNK: Final = 1024 * 1024
#: Objects that one request deletes, by S3.
_DELETED_AT_ONCE: Final = 1000
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HEADER_TEXT: Final = re.compile(r"[ -~]{1,200}")
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenObject:
    """An object that is being read."""

    #: Of all of it, in bytes.
    size: int
    #: What names this version; empty where the server says nothing.
    tag: str
    media_type: str
    #: Where the pieces begin.
    offset: int
    pieces: Iterator[bytes]


class S3Store:
    """A `Store` in the bucket, and below the prefix, that `s3://bucket/prefix` names."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        if parts.scheme != "s3" or not _BUCKET.fullmatch(self._bucket) or parts.query or parts.fragment:
            raise ConfigurationError(f"SHEPHERD_STORE: {url!r} must be s3://bucket or s3://bucket/prefix")
        if self._prefix:
            _check_prefix(url, self._prefix)
        if importlib.util.find_spec("obstore") is None:
            raise ConfigurationError(
                f"SHEPHERD_STORE: {url!r} needs the package obstore: pip install 'shepherd-pipelines[s3]'"
            )
        self._url = f"s3://{self._bucket}{f'/{self._prefix}' if self._prefix else ''}"
        self._opened: obstore.store.S3Store | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._url

    def put(
        self,
        source: Path | bytes,
        *,
        key: str,
        media_type: str,
        is_given_up: bool = False,  # noqa: ARG002  # it has to be copied anyway
    ) -> ClaimCheck:
        checked(key)
        import obstore

        digest = Digest()
        with self._as_unavailable(f"can't write {self._url}/{key}"):
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            part = max(_PART, -(-size // _MOST_PARTS))
            is_whole = size <= _PART
            pieces = _digested(source, digest, size=_CHUNK)
            # Aborts what it has begun when anything raises, also the reading of the source.
            obstore.put(
                self._client,
                key,
                b"".join(pieces) if is_whole else pieces,
                attributes={"Content-Type": media_type} if _HEADER_TEXT.fullmatch(media_type) else {},
                use_multipart=not is_whole,
                chunk_size=part,
                max_concurrency=_AT_ONCE,
            )
        return digest.claim(f"{self._url}/{key}", media_type=media_type)

    def fetch(self, claim: ClaimCheck, *, into: Path) -> Path:
        key = claimed(claim, url=self._url)
        folder = into / secrets.token_hex(8)
        draft, target = folder / "draft", folder / key.rpartition("/")[2]
        with self._as_unavailable(f"can't read {claim.uri}"):
            folder.mkdir(parents=True)
            try:
                with draft.open("xb", buffering=0) as file:
                    for chunk in self._checked(claim, key):
                        file.write(chunk)
                return draft.rename(target)
            except BaseException:
                with suppress(OSError):
                    draft.unlink()
                raise

    def read(self, claim: ClaimCheck) -> bytes:
        key = claimed(claim, url=self._url)
        with self._as_unavailable(f"can't read {claim.uri}"):
            return b"".join(self._checked(claim, key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._as_unavailable(f"can't list {self._url}/{prefix}"):
            for found in self._client.list(prefix or None, chunk_size=1000):
                for each in found:
                    yield StoredObject(key=each["path"], size=each["size"], modified_at=each["last_modified"])

    def delete(self, keys: Sequence[str]) -> None:
        wanted = [checked(key) for key in keys]
        with self._as_unavailable(f"can't delete in {self._url}"):
            for start in range(0, len(wanted), _DELETED_AT_ONCE):
                with suppress(FileNotFoundError):
                    self._client.delete(wanted[start : start + _DELETED_AT_ONCE])

    def open(self, key: str, *, offset: int = 0, tag: str = "") -> "OpenObject":
        """Return any object of the bucket as a stream, from `offset` on if it is still what `tag` says, else all of it.

        Its key may be any that S3 takes.

        Raises:
            StoreUnavailableError: It isn't there or can't be reached; so do the pieces.
        """
        import obstore
        import obstore.exceptions

        with self._as_unavailable(f"can't read s3://{self._bucket}/{key}"):
            try:
                options: Any = {"range": {"offset": offset}, "if_match": tag} if offset and tag else {}
                found = obstore.get(self._client, key, options=options)
            except obstore.exceptions.PreconditionError:
                offset, found = 0, obstore.get(self._client, key)
            return OpenObject(
                size=found.meta["size"],
                tag=found.meta["e_tag"] or "",
                media_type=str(found.attributes.get("Content-Type", "")),
                offset=offset if tag else 0,
                pieces=self._pieces(found, key),
            )

    def _pieces(self, found: Any, key: str) -> Iterator[bytes]:
        with self._as_unavailable(f"can't read s3://{self._bucket}/{key}"):
            for piece in found.stream(min_chunk_size=_CHUNK):
                yield bytes(piece)

    def check(self) -> None:
        with self._as_unavailable(f"can't use {self._url}"):
            # What isn't there has no page of a listing either, so this costs one request.
            next(iter(self._client_of(patience_s=5).list("shepherd-check", chunk_size=1)), None)

    def _checked(self, claim: ClaimCheck, key: str) -> Iterator[memoryview]:
        import obstore

        found = obstore.get(self._client, key)
        compare_size(claim, found.meta["size"])
        digest = Digest()
        for piece in found.stream(min_chunk_size=_CHUNK):
            chunk = memoryview(piece)
            digest.update(chunk)
            yield chunk
        digest.compare(claim)

    @property
    def _client(self) -> "obstore.store.S3Store":
        with self._lock:
            if self._opened is None:
                self._opened = self._client_of(patience_s=60)
            return self._opened

    def _client_of(self, *, patience_s: int) -> "obstore.store.S3Store":
        from obstore.store import S3Store as Client

        return Client(
            self._bucket,
            prefix=self._prefix or None,
            # How long nothing may come, not how long a large object may take.
            client_options={
                "allow_http": _allows_http(os.environ),
                "connect_timeout": timedelta(seconds=min(patience_s, 10)),
                "read_timeout": timedelta(seconds=patience_s),
                "timeout": timedelta(days=1),
            },
            retry_config={
                "max_retries": 4 if patience_s > 5 else 1,
                "retry_timeout": timedelta(seconds=2 * patience_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=200),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )

    @contextmanager
    def _as_unavailable(self, what: str) -> Iterator[None]:
        import obstore.exceptions

        try:
            yield
        except FileNotFoundError as error:
            raise StoreUnavailableError(f"{what}: {_not_found(error, self._bucket)}") from None
        except (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError) as error:
            reason = "the right is missing (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
            raise StoreUnavailableError(f"{what}: {reason}: {_first_line(error)}") from None
        except obstore.exceptions.UnknownConfigurationKeyError as error:
            raise ConfigurationError(f"SHEPHERD_STORE: {_first_line(error)}") from None
        except obstore.exceptions.BaseError as error:
            raise StoreUnavailableError(f"{what}: {_not_found(error, self._bucket)}") from None
        except OSError as error:
            raise StoreUnavailableError(f"{what}: {error.strerror or _first_line(error)}") from error


def _digested(source: Path | bytes, digest: Digest, *, size: int) -> Iterator[bytes]:
    for chunk in chunks(source, size=size):
        digest.update(chunk)
        yield chunk


def _check_prefix(url: str, prefix: str) -> None:
    try:
        checked(prefix)
    except InvalidInputError as error:
        raise ConfigurationError(f"SHEPHERD_STORE: the prefix of {url!r}: {error}") from None


def _allows_http(environ: Mapping[str, str]) -> bool:
    """Tell whether data may travel in the clear: to this machine itself, and where it is asked for.

    Raises:
        ConfigurationError: The endpoint is `http:` elsewhere, and nobody allowed that.
    """
    is_allowed = environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true", "yes", "on"}
    variable = next((name for name in _ENDPOINTS if environ.get(name)), "")
    endpoint = urlsplit(environ.get(variable, ""))
    if endpoint.scheme != "http" or is_allowed:
        return is_allowed
    if _is_loopback(endpoint.hostname or ""):
        return True
    raise ConfigurationError(f"{variable}: {endpoint.geturl()} isn't https; AWS_ALLOW_HTTP=true allows it")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _not_found(error: BaseException, bucket: str) -> str:
    if "NoSuchBucket" in str(error):
        return f"there is no bucket {bucket}"
    if isinstance(error, FileNotFoundError):
        return error.strerror or "it isn't there"
    return _first_line(error)


def _first_line(error: Any) -> str:
    """Return what a person reads of the client's long texts."""
    return str(error).partition("\n")[0][:500]
