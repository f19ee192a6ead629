"""`data_url` as an object in one of the buckets that the operator has named."""

import logging
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from shepherd.errors import ConfigurationError, DataUnavailableError, InvalidInputError, StoreUnavailableError
from shepherd.pipelines.data_urls import object_key
from shepherd.publisher.draft import Draft, Fetched
from shepherd.store.s3 import S3Store

logger = logging.getLogger(__name__)

_TRIES: Final = 3


def copy_object(url: str, draft: Draft) -> Fetched:
    """Copy the object that an `s3:` URL names; one that changes meanwhile is begun anew.

    Raises:
        InvalidInputError: It is too large, or S3 isn't set up here.
        DataUnavailableError: It can't be read, or not in time.
    """
    key = object_key(urlsplit(url).path)
    try:
        store = S3Store(f"s3://{urlsplit(url).netloc}")
    except ConfigurationError as error:
        raise InvalidInputError.at("data_url", str(error).replace("SHEPHERD_STORE: ", "")) from None
    tag, tries = "", 0
    while True:
        before = draft.size
        try:
            found = store.open(key, offset=draft.size, tag=tag)
            draft.check(found.size)
            if found.offset != draft.size:
                draft.restart()
            tag = found.tag
            for piece in found.pieces:
                draft.write(bytes(piece))
            return Fetched(name=PurePosixPath(key).name, media_type=found.media_type)
        except (StoreUnavailableError, ConfigurationError) as error:
            tries = 1 if draft.size > before else tries + 1
            if tries >= _TRIES or isinstance(error, ConfigurationError):
                raise DataUnavailableError(f"{url} can't be fetched: {error}") from error
            logger.warning("data_url.retry", extra={"url": url, "reason": str(error)})
            draft.pause(2.0 ** (tries - 1))
