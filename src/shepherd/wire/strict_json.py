"""JSON as RFC 8259 means it: no NaN, no key twice, no number that has no value, nothing endlessly deep."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from shepherd.errors import Fault

#: Deeper than any document that people write, far below where a parser's stack ends.
MAX_DEPTH: Final = 100
#: A small text can hold a hundred thousand faults; nobody reads more than these.
MAX_FAULTS: Final = 20


_ENCODER: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class StrictJsonError(ValueError):
    """The text isn't JSON that every reader reads alike; `faults` says where."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(str(fault) for fault in faults))


class _Refused:
    """Stands in the parsed document where something can't be accepted, so that its path can be told."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Twice(dict[str, Any]):
    """An object in which at least one key stood more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.keys_twice = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]


def loads(text: bytes | str) -> Any:
    """Return the value that a strict JSON text stands for.

    Raises:
        StrictJsonError: It isn't UTF-8 or JSON, holds NaN, Infinity, a number beyond what a double holds or an integer
            of more than 4,300 digits, a key twice, half a surrogate pair, or is more than 100 levels deep. The first 20
            faults are told.
    """
    reader = _Reader()
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = reader.read(decoded)
    except RecursionError:
        raise StrictJsonError([Fault("", f"is nested more than {MAX_DEPTH} levels deep")]) from None
    except UnicodeDecodeError as error:
        raise StrictJsonError([Fault("", f"is not UTF-8: byte {error.start} can't be read")]) from None
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise StrictJsonError([Fault("", reason)]) from None
    if not reader.is_odd and _is_plain(decoded):
        return value
    faults = list(islice(_faults(value, path="", depth=0), MAX_FAULTS))
    if faults:
        raise StrictJsonError(faults)
    return value


def dumps(value: Any) -> str:
    """Return compact JSON in ASCII: any string survives it, whatever a database or a wire thinks of its characters.

    Raises:
        ValueError: A number in it is NaN or infinite, or it contains itself.
        TypeError: Something in it has no JSON form.
    """
    return _ENCODER.encode(value)


def join(path: str, key: str | int) -> str:
    """Return the path of a member: `a` and `b` make `a.b`, `a` and 0 make `a[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


class _Reader:
    """Reads one text, and notes whether it has put something in place of what can't be accepted."""

    def __init__(self) -> None:
        self.is_odd = False

    def read(self, text: str) -> Any:
        return json.loads(
            text,
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        parsed = dict(pairs)
        if len(parsed) == len(pairs):
            return parsed
        self.is_odd = True
        return _Twice(pairs)

    def _constant(self, name: str) -> _Refused:
        return self._refused(f"is {name}, which JSON doesn't know")

    def _float(self, text: str) -> float | _Refused:
        number = float(text)
        return number if math.isfinite(number) else self._refused("is a number too large to be held")

    def _int(self, text: str) -> int | _Refused:
        try:
            return int(text)
        except ValueError:
            return self._refused("is an integer of too many digits")

    def _refused(self, reason: str) -> _Refused:
        self.is_odd = True
        return _Refused(reason)


def _is_plain(text: str) -> bool:
    """Return whether a text can neither hold half a surrogate pair nor be nested too deep: most can't."""
    return text.isascii() and "\\u" not in text and text.count("{") + text.count("[") <= MAX_DEPTH


def _faults(value: Any, *, path: str, depth: int) -> Iterator[Fault]:
    if isinstance(value, str):
        if not _is_encodable(value):
            yield Fault(path, "holds half a surrogate pair, which is no character")
    elif isinstance(value, _Refused):
        yield Fault(path, value.reason)
    elif isinstance(value, dict | list):
        yield from _faults_inside(value, path=path, depth=depth + 1)


def _faults_inside(value: dict[str, Any] | list[Any], *, path: str, depth: int) -> Iterator[Fault]:
    if depth > MAX_DEPTH:
        yield Fault(path, f"is nested more than {MAX_DEPTH} levels deep")
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, path=join(path, index), depth=depth)
        return
    if isinstance(value, _Twice):
        # A path with half a surrogate pair couldn't be sent to anyone; such a key is told of below.
        keys_twice = (key for key in value.keys_twice if _is_encodable(key))
        yield from (Fault(join(path, key), "stands more than once") for key in keys_twice)
    for key, item in value.items():
        if not _is_encodable(key):
            yield Fault(path, "has a key with half a surrogate pair, which is no character")
            continue
        yield from _faults(item, path=join(path, key), depth=depth)


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
