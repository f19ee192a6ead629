from datetime import UTC, datetime

import pytest

from shepherd.worker.pipe import Frame, FrameKind, FrameReader, packed, packed_line, parse_line


@pytest.mark.parametrize("step", [1, 3, 5, 1000])
def test_frames_come_out_as_they_went_in_however_they_are_cut(step: int) -> None:
    sent = [Frame(FrameKind.TASK, b"x" * 300), Frame(FrameKind.QUIT, b""), Frame(FrameKind.LINE, b"\x00\n")]
    stream = b"".join(packed(frame.kind, frame.payload) for frame in sent)
    reader = FrameReader()

    seen = [frame for start in range(0, len(stream), step) for frame in reader.feed(stream[start : start + step])]

    assert seen == sent


def test_a_line_comes_out_as_it_went_in() -> None:
    at = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    frame = packed_line(at=at.timestamp(), level="INFO", text="ä\n")

    (seen,) = FrameReader().feed(frame)
    line = parse_line(seen.payload)

    assert (line.at, line.level, line.text) == (at, "INFO", "ä\n")
