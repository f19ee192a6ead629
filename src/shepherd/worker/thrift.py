"""Thrift's compact protocol, in which a Parquet file describes itself: read without loss, and written.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import struct
from collections.abc import Iterable
from typing import Any, Final, Self

_BOOLEANS: Final = frozenset({1, 2})
_DEEPEST: Final = 40


class Struct(dict[int, Any]):
    """A structure's fields by their numbers; what they are written as stays the same when a value is replaced."""

    __slots__ = ("kinds",)

    def __init__(self, fields: Iterable[tuple[int, Any]] = (), *, kinds: dict[int, int] | None = None) -> None:
        super().__init__(fields)
        self.kinds = kinds or {}

    def copy(self) -> Self:
        """Return one with the same values: what is in them isn't copied."""
        return type(self)(self.items(), kinds=self.kinds)


class Array(list[Any]):
    """A list; all its values are written as the same."""

    __slots__ = ("kind",)

    def __init__(self, values: Iterable[Any] = (), *, kind: int) -> None:
        super().__init__(values)
        self.kind = kind


def read_struct(raw: bytes, *, until: int | None = None) -> Struct:
    """Read one structure, up to before the field `until`.

    Raises:
        ValueError: It is none, as do IndexError, KeyError and struct.error.
    """
    return _Reader(raw).structure(until=until)


def write_struct(value: Struct) -> bytes:
    out = bytearray()
    _put_struct(out, value)
    return bytes(out)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0
        self._depth = 0

    def structure(self, *, until: int | None = None) -> Struct:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("nested too deep")
        fields = Struct()
        number = 0
        while kind := (head := self._byte()) & 0x0F:
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number == until:
                break
            fields.kinds[number] = kind
            # In a structure, a boolean is told by its type alone.
            fields[number] = kind == 1 if kind in _BOOLEANS else self._value(kind)
        self._depth -= 1
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list()
            case 12:
                return self.structure()
        raise ValueError(f"type {kind}")

    def _list(self) -> Array:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._varint()
        if count > len(self._raw):
            raise ValueError("a list longer than the footer")
        kind = head & 0x0F
        return Array((self._value(kind) for _ in range(count)), kind=kind)

    def _integer(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _byte(self) -> int:
        byte = self._raw[self._at]
        self._at += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        found = self._raw[self._at : self._at + count]
        if len(found) != count:
            raise IndexError
        self._at += count
        return found


def _put_struct(out: bytearray, value: Struct) -> None:
    last = 0
    for number in sorted(value):
        kind = value.kinds[number]
        if kind in _BOOLEANS:
            kind = 1 if value[number] else 2
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            _put_integer(out, number)
        if kind not in _BOOLEANS:
            _put(out, kind, value[number])
        last = number
    out.append(0)


def _put(out: bytearray, kind: int, value: Any) -> None:
    match kind:
        case 1 | 2 | 3:
            out.append(value)
        case 4 | 5 | 6:
            _put_integer(out, value)
        case 7:
            out += struct.pack("<d", value)
        case 8:
            _put_varint(out, len(value))
            out += value
        case 9 | 10:
            _put_list(out, value)
        case 12:
            _put_struct(out, value)
        case _:
            raise ValueError(f"type {kind}")


def _put_list(out: bytearray, values: Array) -> None:
    if len(values) < 15:
        out.append(len(values) << 4 | values.kind)
    else:
        out.append(0xF0 | values.kind)
        _put_varint(out, len(values))
    for value in values:
        _put(out, values.kind, value)


def _put_integer(out: bytearray, value: int) -> None:
    _put_varint(out, (value << 1) ^ (value >> 63))


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
