"""What a file is, by its first bytes, its name and what its sender said; and how its text is written."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shepherd.wire.media import (
    BYTES,
    CSV,
    GEOJSON,
    GZIP,
    HTML,
    JSON,
    NDJSON,
    PARQUET,
    TEXT,
    TSV,
    XLS,
    XLSX,
    XML,
    ZIP,
    kind_of,
)
from shepherd.wire.value import ClaimCheck

_HEAD: Final = 64 * 1024
_CHUNK: Final = 1024 * 1024
#: Bytes below which zeros in turn are chance.
_FEWEST: Final = 8
#: What the first bytes say counts more than any header: servers send CSV as `application/vnd.ms-excel`, and errors as
#: pages.
_MAGIC: Final = ((b"PAR1", PARQUET), (b"\x1f\x8b", GZIP), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", XLS))
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_BINARY: Final = re.compile("[\0-\x06]")
_TEXTS: Final = {CSV, TSV, JSON, NDJSON, GEOJSON, XML, HTML}
_SAME: Final = {
    "text/json": JSON,
    "text/xml": XML,
    "application/csv": CSV,
    "text/x-csv": CSV,
    "application/jsonl": NDJSON,
    "application/x-jsonlines": NDJSON,
    "application/ndjson": NDJSON,
    "application/x-gzip": GZIP,
}


def kind_of_file(path: Path, claim: ClaimCheck) -> str:
    """Return the media type of what a file really holds; one of a list that `tabulate` knows, or what was stated."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return XLSX if b"xl/" in head or kind_of(claim) == XLSX else ZIP
    stated = stated_kind(claim)
    text = head.decode(_by_first_bytes(head) or "latin-1", errors="replace").lstrip("\ufeff \t\r\n")
    return _kind_of_text(text, stated)


def stated_kind(claim: ClaimCheck) -> str:
    """Return the media type that was stated, under its usual name."""
    return _SAME.get(kind_of(claim), kind_of(claim))


def _kind_of_text(text: str, stated: str) -> str:
    start = text[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        return HTML
    if start.startswith("<") and stated in {XML, TEXT, BYTES, HTML}:
        return XML
    if start.startswith(("{", "[")) and stated not in {CSV, TSV}:
        return _kind_of_json(text, stated)
    if stated in _TEXTS:
        return stated
    # Whatever else is stated for it, as `application/vnd.ms-excel`: what is text and nothing else may be CSV.
    is_text = not _BINARY.search(text) and not stated.startswith(("image/", "audio/", "video/", "application/pdf"))
    return CSV if is_text else stated


def _kind_of_json(text: str, stated: str) -> str:
    if stated in {NDJSON, GEOJSON}:
        return stated
    if re.search(r'"type"\s*:\s*"(FeatureCollection|Feature)"', text[:1000]):
        return GEOJSON
    first, _, rest = text.partition("\n")
    is_of_lines = first.rstrip().endswith("}") and rest.lstrip().startswith("{") and text.startswith("{")
    return NDJSON if is_of_lines else JSON


def wide_encoding_of(path: Path) -> str:
    """Return UTF-16 by its name, where a text is that; empty where line breaks and quotes are bytes as in ASCII."""
    with path.open("rb") as file:
        known = _by_first_bytes(file.read(_HEAD))
    return known if known.startswith("utf-16") else ""


def encoding_of(path: Path, claim: ClaimCheck) -> str:
    """Return Python's name of a text's encoding, having read all of it.

    A byte order mark decides, then the pattern of UTF-16, then whether all of it is UTF-8, then what was stated; what
    is left is Windows-1252, or Latin-1 where it uses what Windows-1252 leaves open.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if known := _by_first_bytes(head):
        return known
    if _is_utf8(path):
        return "utf-8"
    if stated := _stated_charset(claim):
        return stated
    unused = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
    return "latin-1" if any(unused.search(chunk) for chunk in chunks_of(path)) else "cp1252"


def chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def texts_of(path: Path, encoding: str) -> Iterator[str]:
    """Yield a text in pieces, its line ends as they are.

    Raises:
        UnicodeError: It isn't all in this encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in chunks_of(path):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _by_first_bytes(head: bytes) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    even, odd = head[:2000:2], head[1:2000:2]
    if len(head) < _FEWEST:
        return ""
    if odd.count(0) > 0.4 * len(odd) and not even.count(0):
        return "utf-16-le"
    if even.count(0) > 0.4 * len(even) and not odd.count(0):
        return "utf-16-be"
    return ""


def _is_utf8(path: Path) -> bool:
    try:
        for _ in texts_of(path, "utf-8"):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _stated_charset(claim: ClaimCheck) -> str:
    found = re.search(r"charset\s*=\s*\"?([\w.:-]+)", claim.media_type, re.IGNORECASE)
    try:
        name = codecs.lookup(found[1]).name if found else ""
    except LookupError:
        return ""
    # WHATWG's reading: who says Latin-1 sends Windows-1252. And it isn't UTF-8, whatever was stated.
    return "" if name in {"utf-8", "iso8859-1", "ascii"} else name
