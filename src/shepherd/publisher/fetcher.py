"""Fetching `data_url` into the store: once a run, by the Task Publisher, from where it may."""

import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

from shepherd.errors import AddressRefusedError, InvalidInputError
from shepherd.pipelines.data_urls import DataSources, data_url_fault
from shepherd.publisher.draft import Draft, Fetched, Limits
from shepherd.publisher.local_file import copy_file
from shepherd.publisher.stored_object import copy_object
from shepherd.store.key import segment
from shepherd.store.port import Store
from shepherd.wire.media import BYTES, media_type_of
from shepherd.wire.value import ClaimCheck


class Fetcher:
    """Safe to use from several threads."""

    def __init__(self, store: Store, sources: DataSources, limits: Limits | None = None) -> None:
        self._store = store
        self._sources = sources
        self._limits = limits or Limits()
        self._ended = threading.Event()

    def end(self) -> None:
        """Break off what is being fetched: each `fetch` raises `FetchEndedError` before it takes another piece."""
        self._ended.set()

    def fetch(self, url: str, *, run_id: str) -> ClaimCheck:
        """Return the claim check of the file that a URL names, fetched into the store.

        Raises:
            AddressRefusedError: It leads to where no setting allows: a private, loopback or link-local address, a file
                outside of the folders, another bucket.
            InvalidInputError: It can't be fetched by anybody: too large, too many redirects, it isn't there.
            DataUnavailableError: The server didn't answer, or answered with an error; it may later.
            StoreUnavailableError: The store didn't take the file.
            FetchEndedError: `end` was called.
        """
        if reason := data_url_fault(url, self._sources):
            raise AddressRefusedError.at("data_url", reason)
        with (
            tempfile.TemporaryDirectory(prefix="shepherd-data-") as folder,
            Draft(Path(folder) / "data", self._limits, ended=self._ended) as draft,
        ):
            found = self._copied(url, draft)
            name = segment(found.name or "data")
            media_type = found.media_type or media_type_of(name) or BYTES
            key = f"runs/{run_id}/data_url/{name}"
            return self._store.put(draft.path, key=key, media_type=media_type, is_given_up=True)

    def _copied(self, url: str, draft: Draft) -> Fetched:
        match urlsplit(url).scheme:
            case "http" | "https":
                # Not at the top: with httpcore it takes a tenth of the time in which a Task Publisher starts.
                from shepherd.publisher.download import Downloader

                return Downloader(allow=self._sources.allow).download(url, draft)
            case "file":
                return copy_file(url, draft, folders=self._sources.folders)
            case "s3":
                return copy_object(url, draft)
        raise InvalidInputError.at("data_url", "has a scheme that nobody fetches")
