"""Where claim checks are handed in and data is given out; `open_store` turns a URL into an adapter."""

from urllib.parse import urlsplit

from shepherd.errors import ConfigurationError
from shepherd.store.folder import FolderStore
from shepherd.store.port import Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """Return the store that `SHEPHERD_STORE` names. Nothing is created or reached before the first use.

    Raises:
        ConfigurationError: No adapter knows such a URL; the text names the variable.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return FolderStore(url)
    raise ConfigurationError(f"SHEPHERD_STORE: {url!r} is no store; a folder is given as file:///absolute/path")
