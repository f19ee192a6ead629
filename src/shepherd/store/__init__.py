"""Where claim checks are handed in and data is given out; `open_store` turns a URL into an adapter."""

from urllib.parse import urlsplit

from shepherd.errors import ConfigurationError
from shepherd.store.folder import FolderStore
from shepherd.store.port import Store
from shepherd.store.s3 import S3Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """Return the store that `SHEPHERD_STORE` names. Nothing is created, reached or loaded before the first use.

    Raises:
        ConfigurationError: No adapter knows such a URL, or what it needs isn't installed; the text names the variable.
    """
    match urlsplit(url).scheme:
        case "file":
            return FolderStore(url)
        case "s3":
            return S3Store(url)
    raise ConfigurationError(
        f"SHEPHERD_STORE: {url!r} is no store; a folder is given as file:///absolute/path, a bucket as s3://bucket/prefix"
    )
