"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    #: Nobody could look; says how to make it possible.
    UNSEEN = "unseen"
    #: Works, but for how long, or for whom.
    WARNING = "warning"
    #: Loses or stalls work.
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    level: Level
    #: What is so, as a sentence.
    what: str
    #: Why it matters; empty where all is well.
    why: str = ""
    #: The command that mends it, or where none does, what to do.
    remedy: str = ""


def ok(what: str) -> Finding:
    return Finding(level=Level.OK, what=what)


def unseen(what: str, *, remedy: str = "") -> Finding:
    return Finding(level=Level.UNSEEN, what=what, remedy=remedy)


def warning(what: str, *, why: str, remedy: str) -> Finding:
    return Finding(level=Level.WARNING, what=what, why=why, remedy=remedy)


def error(what: str, *, why: str, remedy: str) -> Finding:
    return Finding(level=Level.ERROR, what=what, why=why, remedy=remedy)
