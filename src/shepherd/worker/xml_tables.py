"""Tables in XML: the elements that repeat are the rows, what stands in them the columns."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn
from xml.parsers import expat

from shepherd.errors import TaskFailedError
from shepherd.worker.delimited import Clean, csv_to_parquet
from shepherd.worker.desk import Desk

#: A document in which each record has other names is no table.
_MOST_COLUMNS: Final = 10_000
_DEEPEST: Final = 100


def xml_to_parquet(source: Path, desk: Desk) -> Path:
    """Rewrite an XML file as Parquet, in two streams over it: one finds the rows, one writes them.

    The rows are the elements highest up that stand more than once in the same place. Their attributes and the
    elements inside them are columns, those further down as `address.city`; what a row repeats is joined with `|`.

    Raises:
        TaskFailedError: `invalid_data`: it isn't XML, it declares entities, or nothing in it repeats.
    """
    row, names = _shape(source)
    lines = desk.path("rows.csv")
    with lines.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, dialect=Clean)
        writer.writeheader()
        _read(source, _Rows(row, writer.writerow))
    return csv_to_parquet(lines, desk, encoding="utf-8", separator=Clean.delimiter)


def _shape(source: Path) -> tuple[tuple[str, ...], list[str]]:
    outline = _Outline()
    _read(source, outline)
    row = min((path for path, count in outline.most.items() if count > 1), key=len, default=())
    # One record alone repeats nothing: then the root's only kind of child is it.
    row = row or next((path for path in outline.most if len(path) == 2), ())
    names: dict[str, None] = {}
    for path, attribute in outline.leaves:
        if path[: len(row)] == row:
            names[_column(path[len(row) :], attribute)] = None
    if not row or not names:
        _refuse("no element in it repeats")
    return row, list(names)


class _Outline:
    """Counts, for each place in a document, how many elements of it its parent has at most."""

    def __init__(self) -> None:
        self.most: dict[tuple[str, ...], int] = {}
        #: (place, attribute or none) of everything that has a value, in order.
        self.leaves: dict[tuple[tuple[str, ...], str], None] = {}
        self._path: list[str] = []
        self._children: list[Counter[str]] = [Counter()]

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        path = tuple(self._path)
        self._children[-1][name] += 1
        self.most[path] = max(self.most.get(path, 0), self._children[-1][name])
        # An element that says all in its attributes has no value of its own.
        self._children.append(Counter(attributes.keys()))
        self.leaves |= {(path, attribute): None for attribute in attributes}
        if len(self._path) > _DEEPEST or len(self.leaves) > _MOST_COLUMNS:
            _refuse(f"it has more than {_DEEPEST} levels or {_MOST_COLUMNS} kinds of values")

    def end(self, _name: str, text: str) -> None:
        has_parts = bool(self._children.pop())
        if text or not has_parts:
            self.leaves[tuple(self._path), ""] = None
        self._path.pop()


class _Rows:
    """Hands on each row's values."""

    def __init__(self, row: tuple[str, ...], write: Callable[[dict[str, str]], Any]) -> None:
        self._row = row
        self._write = write
        self._path: list[str] = []
        self._values: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if self._is_inside():
            for attribute, value in attributes.items():
                self._add(attribute, value)

    def end(self, _name: str, text: str) -> None:
        if self._is_inside() and text:
            self._add("", text)
        if tuple(self._path) == self._row:
            self._write(self._values)
            self._values = {}
        self._path.pop()

    def _is_inside(self) -> bool:
        return tuple(self._path[: len(self._row)]) == self._row

    def _add(self, attribute: str, value: str) -> None:
        name = _column(tuple(self._path[len(self._row) :]), attribute)
        self._values[name] = f"{self._values[name]}|{value}" if name in self._values else value


def _column(path: tuple[str, ...], attribute: str) -> str:
    return ".".join([*path, attribute] if attribute else path) or "value"


def _read(source: Path, reader: _Outline | _Rows) -> None:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    texts: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        texts.clear()
        reader.start(_local(name), {_local(key): value for key, value in attributes.items() if key != "xmlns"})

    def end(name: str) -> None:
        reader.end(_local(name), "".join(texts).strip())
        texts.clear()

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, texts.append
    # An entity may stand for a billion others, or for a file of this server: no table needs one.
    parser.EntityDeclHandler = lambda *_: _refuse("it declares entities")
    try:
        with source.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, ValueError, LookupError) as error:
        _refuse(str(error))


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _refuse(reason: str) -> NoReturn:
    raise TaskFailedError("invalid_data", f"the data can't be read as a table in XML: {reason}")
