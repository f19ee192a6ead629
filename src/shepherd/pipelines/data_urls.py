"""What `data_url` may name here: decided without asking anybody, by the web process and again by the Task Publisher."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from shepherd.domain.addresses import is_local_name, is_public, literal_address


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSources:
    """Where data may be fetched from, beside the public internet."""

    #: `host` or `host:port` that may be reached although private.
    allow: Collection[str] = ()
    #: Absolute paths of folders whose files may be named.
    folders: Collection[str] = ()
    #: `bucket` or `bucket/prefix` whose objects may be named.
    buckets: Collection[str] = ()


def data_url_fault(url: str, sources: DataSources) -> str:
    """Return why a `data_url` of the right form can't be fetched here, as the end of "This field …"; else nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no address: {error}"
    match parts.scheme:
        case "http" | "https":
            return _of_host(parts, port, sources.allow)
        case "file":
            return _of_file(unquote(parts.path), parts.netloc, sources.folders)
        case "s3":
            return _of_object(parts, sources.buckets)
    return f"leads to {parts.scheme[:20]}:, but only http, https, s3 and file are fetched"


def is_allowed(host: str, port: int | None, allow: Collection[str]) -> bool:
    return host in allow or f"{host}:{port}" in allow


def object_key(path: str) -> str:
    """Return the key that the path of an `s3:` address names."""
    return unquote(path).removeprefix("/")


def _of_host(parts: SplitResult, port: int | None, allow: Collection[str]) -> str:
    if "@" in parts.netloc:
        return "must not hold a user name or a password, since it is stored and shown"
    host = unquote(parts.hostname or "")
    if not host:
        return "names no host"
    if is_allowed(host, port or (443 if parts.scheme == "https" else 80), allow):
        return ""
    address = literal_address(host)
    is_private = is_local_name(host) if address is None else not is_public(str(address))
    if not is_private:
        return ""
    shown = host if address is None or str(address) == host else f"{host} ({address})"
    return f"leads to {shown}, which isn't public; SHEPHERD_DATA_URL_ALLOW can allow it"


def _of_file(path: str, host: str, folders: Collection[str]) -> str:
    if host not in {"", "localhost"}:
        return "must be file:///absolute/path, without a host"
    if "\0" in path or ".." in PurePosixPath(path).parts:
        return "must be the plain path of a file, without '..' or NUL"
    # As it is written: where it really leads is looked at when it is opened.
    if any(PurePosixPath(path).is_relative_to(folder) and path.rstrip("/") != folder for folder in folders):
        return ""
    return "lies in no folder that may be read; SHEPHERD_DATA_FOLDERS names those"


def _of_object(parts: SplitResult, buckets: Collection[str]) -> str:
    key = object_key(parts.path)
    if "@" in parts.netloc or not parts.netloc:
        return "must be s3://bucket/key, without a user name"
    if not key or "\0" in key or {".", ".."}.intersection(key.split("/")):
        return "must name an object by its key, without '.', '..' or NUL"
    named = f"{parts.netloc}/{key}"
    if any(named.startswith(f"{bucket.rstrip('/')}/") for bucket in buckets):
        return ""
    return "lies in no bucket that may be read; SHEPHERD_DATA_BUCKETS names those"
