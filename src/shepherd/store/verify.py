"""What is compared with a claim, whichever store the bytes come from."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from shepherd.errors import ProtocolError
from shepherd.wire.value import ClaimCheck


class Digest:
    """Checksum and size of what passes through."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0

    def update(self, chunk: bytes | memoryview) -> None:
        self._sha256.update(chunk)
        self.size += len(chunk)

    def claim(self, uri: str, *, media_type: str) -> ClaimCheck:
        return ClaimCheck(uri=uri, sha256=self._sha256.hexdigest(), size=self.size, media_type=media_type)

    def compare(self, claim: ClaimCheck) -> None:
        """Return if what passed through is what was claimed.

        Raises:
            ProtocolError: It isn't.
        """
        compare_size(claim, self.size)
        if self._sha256.hexdigest() != claim.sha256:
            raise ProtocolError(f"{claim.uri} has the checksum {self._sha256.hexdigest()}, claimed was {claim.sha256}")


def compare_size(claim: ClaimCheck, size: int) -> None:
    if size != claim.size:
        raise ProtocolError(f"{claim.uri} has {size} bytes, claimed were {claim.size}")


def chunks(source: Path | bytes, *, size: int) -> Iterator[bytes]:
    """Return the bytes in pieces of at most `size`, each of which may be kept."""
    if isinstance(source, bytes):
        yield from (source[start : start + size] for start in range(0, len(source), size))
        return
    with source.open("rb", buffering=0) as file:
        while chunk := file.read(size):
            yield chunk
