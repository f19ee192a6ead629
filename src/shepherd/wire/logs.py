"""What tasks log, on its way to the server."""

from dataclasses import dataclass
from datetime import datetime

from shepherd.wire.fields import Fields, encode, format_time, readable, typed


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a task's code logged or printed."""

    #: Counts from 1 within an attempt, so that a gap is seen.
    n: int
    at: datetime
    #: A level of Python's `logging`, DEBUG to CRITICAL; a printed line is INFO, one on standard error WARNING.
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLines:
    """Some lines of one attempt, in their order."""

    token: str
    worker: str
    lines: tuple[LogLine, ...]

    def to_bytes(self) -> bytes:
        lines = [
            {"n": line.n, "at": format_time(line.at), "level": line.level, "text": readable(line.text)}
            for line in self.lines
        ]
        return encode("log", token=self.token, worker=self.worker, lines=lines)

    @classmethod
    def parse(cls, body: bytes) -> "LogLines":
        """Return the lines that a delivery from `shepherd.logs` holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(typed(body, "log"))
        inner = (Fields(line, path=f"lines[{index}]") for index, line in enumerate(fields.items("lines")))
        lines = tuple(
            LogLine(
                n=line.count("n"), at=line.time("at"), level=line.words("level", longest=10), text=line.words("text")
            )
            for line in inner
        )
        return cls(token=fields.id("token"), worker=fields.id("worker"), lines=lines)
