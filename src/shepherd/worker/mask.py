"""Taking secrets out of what is said, and finding them in what is kept, in whichever form they stand there."""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import AnyStr, Final
from urllib.parse import quote, quote_plus

from shepherd.store.key import segment
from shepherd.worker.failure import printable

#: A shorter text stands in too much that is no secret, and can be guessed.
SHORTEST: Final = 6


class Mask:
    """Knows some secrets; never forgets one, since a thread may still say what an earlier task was given.

    Any thread may use it while another one adds.
    """

    def __init__(self) -> None:
        #: The forms of all secrets, each with the name of its secret.
        self._forms: dict[str, str] = {}
        self._bytes: dict[bytes, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._bytes_pattern: re.Pattern[bytes] | None = None
        #: Of the longest form, in bytes.
        self.longest = 0

    def add(self, name: str, value: str) -> None:
        """Know one more secret, of at least `SHORTEST` characters."""
        new = {form: name for form in _forms(value) if len(form) >= SHORTEST and form not in self._forms}
        if not new:
            return
        self._forms = {**self._forms, **new}
        encoded = {form.encode("utf-8", "surrogateescape"): own for form, own in new.items()}
        wide = {value.encode(encoding, "replace"): name for encoding in ("utf-16-le", "utf-16-be")}
        self._bytes = {**self._bytes, **encoded, **wide}
        self.longest = max(map(len, self._bytes))
        # The longest first: of two that begin alike the whole one is to be taken out.
        texts, contents = sorted(self._forms, key=len, reverse=True), sorted(self._bytes, key=len, reverse=True)
        self._bytes_pattern = re.compile(b"|".join(map(re.escape, contents)))
        self._pattern = re.compile("|".join(map(re.escape, texts)))

    def text(self, text: str) -> str:
        """Return a text with the name of each secret in its place."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(lambda found: f"[secret {self._forms[found[0]]}]", text)

    def content(self, content: bytes) -> bytes:
        """Return bytes with the name of each secret in its place."""
        pattern = self._bytes_pattern
        if pattern is None:
            return content
        return pattern.sub(lambda found: f"[secret {self._bytes[found[0]]}]".encode(), content)

    def split_text(self, text: str) -> tuple[str, str]:
        """Return what may be said of an endless line, and the rest, of which a secret may only have begun."""
        return _split(text, self._pattern, self.longest)

    def split_content(self, content: bytes) -> tuple[bytes, bytes]:
        return _split(content, self._bytes_pattern, self.longest)

    def find(self, chunks: Iterable[bytes | memoryview]) -> str | None:
        """Return the name of a secret in these pieces of one content, also one that stands across two of them."""
        before = b""
        for chunk in chunks:
            piece = before + bytes(chunk)
            for form, name in self._bytes.items():
                if form in piece:
                    return name
            before = piece[-(self.longest - 1) :] if self.longest > 1 else b""
        return None


def _split(text: AnyStr, pattern: re.Pattern[AnyStr] | None, longest: int) -> tuple[AnyStr, AnyStr]:
    if pattern is None:
        return text, text[:0]
    place = max(0, len(text) - longest + 1)
    for found in pattern.finditer(text):
        if found.start() < place < found.end():
            place = found.end()
    return text[:place], text[place:]


def _forms(value: str) -> Iterator[str]:
    """Yield the forms in which people and programs write a text down."""
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST]
    # Of a key of several lines each, since each is a line of a log.
    for text in dict.fromkeys([value, value.strip(), *(lines if len(lines) > 1 else [])]):
        yield from _written(text)
    for content in (value.encode("utf-8", "surrogateescape"), value.encode("utf-16-le", "replace")):
        yield content.hex()
        yield content.hex().upper()
        yield from _in_base64(content)


def _written(text: str) -> Iterator[str]:
    yield text
    yield printable(text)
    for is_ascii in (True, False):
        once = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        yield once
        # JSON in a text in JSON.
        yield json.dumps(once, ensure_ascii=is_ascii)[1:-1]
    for shown in (repr(text)[1:-1], repr(text.encode("utf-8", "surrogateescape"))[2:-1]):
        yield shown
        # The `repr` of what holds its `repr`, as in the message of an exception.
        yield repr(shown)[1:-1]
    yield html.escape(text)
    for quoted in (quote(text, safe="", errors="replace"), quote(text, errors="replace")):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield quote_plus(text, errors="replace")
    # The name of a file, as the store keeps it.
    yield segment(text).strip("_")


def _in_base64(content: bytes) -> Iterator[str]:
    """Yield what the base64 of anything that holds the content has in it, wherever that begins."""
    for offset in range(3):
        begins = -(-offset * 8 // 6)
        ends = (offset + len(content)) * 8 // 6
        encoded = base64.b64encode(b"\0" * offset + content).decode()[begins:ends]
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")
        yield encoded.replace("+", "%2B").replace("/", "%2F")
