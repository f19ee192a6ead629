"""Media types: what a file is called on the wire, and what a claim check says it is."""

from pathlib import PurePosixPath
from typing import Final

from shepherd.wire.value import ClaimCheck

PARQUET: Final = "application/vnd.apache.parquet"
CSV: Final = "text/csv"
JSON: Final = "application/json"
TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"
#: JSON values one after another, each in a line of its own.
NDJSON: Final = "application/x-ndjson"
GEOJSON: Final = "application/geo+json"
TSV: Final = "text/tab-separated-values"
XML: Final = "application/xml"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLS: Final = "application/vnd.ms-excel"
HTML: Final = "text/html"
GZIP: Final = "application/gzip"
ZIP: Final = "application/zip"
#: A folder: an uncompressed tar of plain files and folders.
FOLDER: Final = "application/vnd.shepherd.folder+tar"

#: A list of our own: what Python's `mimetypes` says depends on the server's files.
_BY_SUFFIX: Final = {
    ".parquet": PARQUET,
    ".csv": CSV,
    ".tsv": TSV,
    ".tab": TSV,
    ".json": JSON,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".txt": TEXT,
    ".log": TEXT,
    ".md": "text/markdown",
    ".html": HTML,
    ".xml": XML,
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".geojson": GEOJSON,
    ".zip": ZIP,
    ".gz": GZIP,
    ".xlsx": XLSX,
    ".xls": XLS,
}


def media_type_of(file_name: str) -> str:
    return _BY_SUFFIX.get(PurePosixPath(file_name).suffix.lower(), BYTES)


def kind_of(claim: ClaimCheck) -> str:
    """Return a claim's media type without parameters; one that says nothing gives way to the address's ending."""
    stated = claim.media_type.partition(";")[0].strip().lower()
    by_name = media_type_of(claim.uri)
    return by_name if stated in {BYTES, TEXT} and by_name != BYTES else stated
