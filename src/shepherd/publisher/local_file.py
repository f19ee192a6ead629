"""`data_url` as a file in one of the folders that the operator has named."""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shepherd.errors import AddressRefusedError, DataUnavailableError, InvalidInputError
from shepherd.publisher.draft import CHUNK, Draft, Fetched


def copy_file(url: str, draft: Draft, *, folders: Collection[str]) -> Fetched:
    """Copy the file that a `file:` URL names, if it really lies in one of the folders, wherever links lead.

    Raises:
        AddressRefusedError: It lies elsewhere.
        InvalidInputError: It is no plain file, isn't there, or is too large.
        DataUnavailableError: It can't be read, or not in time.
    """
    path = Path(unquote(urlsplit(url).path))
    try:
        # Without waiting: a pipe of this name would keep us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError.at("data_url", f"names no file: {path}") from None
    except (OSError, ValueError) as error:
        raise DataUnavailableError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        _check(descriptor, path, folders)
        draft.check(os.fstat(descriptor).st_size)
        while chunk := os.read(descriptor, CHUNK):
            draft.write(chunk)
    except OSError as error:
        raise DataUnavailableError(f"{path} can't be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    return Fetched(name=path.name)


def _check(descriptor: int, path: Path, folders: Collection[str]) -> None:
    # Of what was opened, not of its name: that may have become a link since.
    opened = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
    if not any(opened.is_relative_to(os.path.realpath(folder)) for folder in folders):
        reason = f"{path} is a link that leads out of the folders which may be read (SHEPHERD_DATA_FOLDERS)"
        raise AddressRefusedError.at("data_url", reason)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidInputError.at("data_url", f"names no plain file: {path}")
