"""What travels between tasks: small JSON itself, anything else as a claim check."""

import re
from dataclasses import dataclass
from typing import Any, Final

from shepherd.errors import ProtocolError
from shepherd.wire.fields import LARGEST_NUMBER

#: A JSON value of up to this many bytes travels in the envelope.
INLINE_LIMIT: Final = 64 * 1024

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Inline:
    """A JSON value that travels in the envelope itself."""

    value: Any

    def to_wire(self) -> dict[str, Any]:
        return {"inline": self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheck:
    """What travels in place of data that lies in the store."""

    #: Where it lies, as in `file:///srv/shepherd/store/runs/…/1.parquet`.
    uri: str
    #: 64 lower-case hexadecimal digits, over the bytes as stored.
    sha256: str
    #: In bytes.
    size: int
    #: RFC 6838, as in `application/vnd.apache.parquet`.
    media_type: str

    def to_wire(self) -> dict[str, Any]:
        claim = {"uri": self.uri, "sha256": self.sha256, "size": self.size, "media_type": self.media_type}
        return {"claim": claim}


Value = Inline | ClaimCheck

NOTHING: Final = Inline(None)


def parse_value(document: Any, *, path: str) -> Value:
    """Return the value that a parsed `{"inline": …}` or `{"claim": {…}}` stands for; other fields are left alone.

    Raises:
        ProtocolError: It is neither, or both.
    """
    kinds = document.keys() & {"inline", "claim"} if isinstance(document, dict) else set()
    if kinds == {"inline"}:
        return Inline(document["inline"])
    if kinds == {"claim"}:
        return _parse_claim(document["claim"], path=f"{path}.claim")
    raise ProtocolError(f"{path}: must be an object with either 'inline' or 'claim'")


def _parse_claim(claim: Any, *, path: str) -> ClaimCheck:
    if not isinstance(claim, dict):
        raise ProtocolError(f"{path}: must be an object")
    texts = {name: claim.get(name) for name in ("uri", "sha256", "media_type")}
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            raise ProtocolError(f"{path}.{name}: must be a non-empty string")
    if not _SHA256.fullmatch(str(texts["sha256"])):
        raise ProtocolError(f"{path}.sha256: must be 64 lower-case hexadecimal digits")
    size = claim.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_NUMBER:
        raise ProtocolError(f"{path}.size: must be a number of bytes")
    return ClaimCheck(
        uri=str(texts["uri"]), sha256=str(texts["sha256"]), size=size, media_type=str(texts["media_type"])
    )
