"""What stands in a text table that polars' parser would misread: looked for in all of it, before it is parsed."""

import importlib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shepherd.worker.recognise import chunks_of

#: Bytes of a line; what is longer is odd.
_LONGEST: Final = 64 * 1024 * 1024
#: polars searches without Python's lock, but each text in one thread.
_THREADS: Final = 2


@dataclass(slots=True, kw_only=True)
class Oddities:
    """What may be there. A text may hold it as well, where it does no harm; what isn't found here isn't there."""

    #: Blank lines, which polars takes as rows, or lines ended by a lone carriage return.
    lines: bool = False
    #: Fields that the parser takes as a number, dropping a zero or blank in front that says it's a code.
    codes: bool = False
    #: Words for a missing value other than `NA`, or a quoted field with nothing in it.
    words: bool = False


def survey(path: Path, separator: str) -> Oddities:
    """Look through a file in UTF-8, as fast as memory is read; no more than a few pieces of it are held."""
    patterns, found = _patterns(separator), Oddities()
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for lines in _pieces(path):
            if lines is None:
                return Oddities(lines=True, codes=True, words=True)
            pending.append(pool.submit(_look, lines, patterns, found))
            if len(pending) > _THREADS:
                pending.popleft().result()
        for each in pending:
            each.result()
    return found


def _look(lines: bytes, patterns: Mapping[str, Sequence[str]], found: Oddities) -> None:
    text = importlib.import_module("polars").Series([lines.decode("utf-8", "replace")])
    for name, alternatives in patterns.items():
        if not getattr(found, name) and any(text.str.contains(pattern)[0] for pattern in alternatives):
            setattr(found, name, True)


def _patterns(separator: str) -> dict[str, tuple[str, ...]]:
    # Each stands for a few dozen texts of three bytes or so, for which there is a search that takes many bytes at once;
    # one for all, or one that repeats anything, takes five times as long.
    begins = rf'[{re.escape(separator)}\n"]'
    return {
        "lines": (r"\n\r?\n",),
        "codes": (rf"{begins}0[0-9]", rf"{begins}[+-]0[0-9]", rf"{begins}[ \t][0-9 \t.+-]"),
        "words": (rf"{begins}(?:N/A|n/a|#N/A|NaN|nan|NULL|null|None)", '""'),
    }


def _pieces(path: Path) -> Iterator[bytes | None]:
    """Yield whole lines, each piece with a line's end in front; None for lines that are too long or end otherwise."""
    begun, is_one_line = b"\n", True
    for chunk in chunks_of(path):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join((begun, chunk[:cut]))
            begun, is_one_line = b"\n", False
        begun += chunk[cut:]
        if len(begun) > _LONGEST:
            yield None
            return
    yield None if is_one_line and b"\r" in begun else begun
