"""How large an image is, from the first bytes of its file."""

import struct
from pathlib import Path
from typing import IO, Final

#: JPEG's markers that begin a frame, and so tell its size; C4, C8 and CC are something else.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: Segments that come before a JPEG's frame.
_MOST_SEGMENTS: Final = 200
_WIDTH, _HEIGHT = 256, 257
#: What begins a file, and how and where width and height follow.
_FIXED: Final = (
    (b"\x89PNG\r\n\x1a\n", ">II", 16),
    (b"GIF87a", "<HH", 6),
    (b"GIF89a", "<HH", 6),
    (b"BM", "<ii", 18),
)


def pixels(path: Path) -> tuple[int, int] | None:
    """Return width and height of a PNG, GIF, BMP, JPEG, WebP or TIFF file; None for anything else."""
    try:
        with path.open("rb") as file:
            return _size(file)
    except (OSError, struct.error, IndexError):
        return None


def _size(file: IO[bytes]) -> tuple[int, int] | None:
    head = file.read(32)
    for begins_with, form, start in _FIXED:
        if head.startswith(begins_with):
            width, height = _pair(form, head[start : start + struct.calcsize(form)])
            return width, abs(height)
    if head[:2] == b"\xff\xd8":
        return _jpeg(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:4] in {b"II*\0", b"MM\0*"}:
        return _tiff(file, "<" if head[:2] == b"II" else ">")
    return None


def _pair(form: str, raw: bytes) -> tuple[int, int]:
    width, height = struct.unpack(form, raw)
    return width, height


def _jpeg(file: IO[bytes]) -> tuple[int, int] | None:
    file.seek(2)
    for _ in range(_MOST_SEGMENTS):
        mark, marker, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            return None
        if marker in _FRAMES:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, 1)
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8 ":
            width, height = _pair("<HH", head[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _tiff(file: IO[bytes], order: str) -> tuple[int, int] | None:
    file.seek(4)
    file.seek(struct.unpack(f"{order}I", file.read(4))[0])
    found: dict[int, int] = {}
    for _ in range(struct.unpack(f"{order}H", file.read(2))[0]):
        entry = file.read(12)
        tag, kind = struct.unpack(f"{order}HH", entry[:4])
        if tag in {_WIDTH, _HEIGHT}:
            found[tag] = struct.unpack(f"{order}H", entry[8:10])[0] if kind == 3 else _long(order, entry)
    return (found[_WIDTH], found[_HEIGHT]) if len(found) == 2 else None


def _long(order: str, entry: bytes) -> int:
    (value,) = struct.unpack(f"{order}I", entry[8:12])
    return int(value)
