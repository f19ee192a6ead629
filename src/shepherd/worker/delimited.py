"""CSV, as it is really published, into Parquet: streamed, whatever its encoding, separator and oddities."""

import csv
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shepherd.errors import TaskFailedError
from shepherd.worker import columns
from shepherd.worker.desk import Desk
from shepherd.worker.footer import read_footer
from shepherd.worker.recognise import texts_of
from shepherd.worker.survey import Oddities, survey
from shepherd.worker.tables import sink_lazy

#: In characters: enough to see the header, and rows enough to judge the separator by.
_HEAD: Final = 256 * 1024
_ROWS_TO_JUDGE_SEPARATOR: Final = 50
_SEPARATORS: Final = ",;\t|"
#: The csv module's own limit of a field is 128 KiB; a boundary of a district as text has more.
_LONGEST_FIELD: Final = 2**31 - 1
_SEPARATOR_LINE: Final = re.compile(r"\"?sep=(.)\"?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the rows of a CSV file are written."""

    separator: str
    #: Unique, none empty.
    names: Sequence[str]
    #: Records before the header, as the `sep=;` that Excel understands.
    skipped: int


def csv_to_parquet(source: Path, desk: Desk, *, encoding: str, separator: str = "") -> Path:
    """Rewrite a CSV file as Parquet. Without a `separator` it is judged by the first rows.

    The first line names the columns. What polars can't read as it stands, and what has blank lines, is rewritten
    record by record first, which is slower and says the line of what can't be read at all.

    Raises:
        TaskFailedError: `invalid_data`: a row has more fields than the header, or a quote isn't closed.
    """
    pl = importlib.import_module("polars")
    path = source if encoding in {"utf-8", "utf-8-sig"} else _recoded(source, desk.path("recoded.csv"), encoding)
    layout = layout_of(path, separator=separator)
    target = desk.path("data.parquet")
    if not layout.names:
        pl.DataFrame().write_parquet(target)
        return target
    found = survey(path, layout.separator)
    if layout.skipped or found.lines:
        path, layout, found = _rewritten(path, desk, layout)
    try:
        _convert(path, layout, found, target)
    except pl.exceptions.PolarsError as error:
        if layout.separator == Clean.delimiter:
            raise _unreadable(str(error)) from error
        _convert(*_rewritten(path, desk, layout), target)
    return target


def layout_of(path: Path, *, encoding: str = "utf-8-sig", separator: str = "") -> Layout:
    """Return how a file's rows are written, by its first ones. Bytes that the encoding lacks do no harm."""
    return _layout(_head(path, encoding), separator)


def _convert(path: Path, layout: Layout, found: Oddities, target: Path) -> None:
    pl = importlib.import_module("polars")
    strings = _scan(path, layout, found, dict.fromkeys(layout.names, pl.String))
    has_comma = layout.separator != ","
    kinds, is_sure = columns.judge_head(strings, has_decimal_comma=has_comma)
    with suppress(pl.exceptions.PolarsError):
        _sink(path, layout, found, kinds, target, is_sure=is_sure)
        if is_sure or not _has_too_many_digits(target, kinds):
            return
    # A later row isn't like the first ones.
    kinds = columns.judge(strings, layout.names, has_decimal_comma=has_comma)
    _sink(path, layout, found, kinds, target, is_sure=True)


def _sink(
    path: Path, layout: Layout, found: Oddities, kinds: dict[str, columns.Kind], target: Path, *, is_sure: bool
) -> None:
    is_parsed = is_sure or not found.codes
    read_as = {name: columns.read_as(kind, is_parsed=is_parsed) for name, kind in kinds.items()}
    conversions = [
        columns.conversion(name, kind, is_sure=is_sure, is_parsed=is_parsed)
        for name, kind in kinds.items()
        if kind.is_converted
    ]
    frame = _scan(path, layout, found, read_as).with_columns(conversions)
    sink_lazy(frame, target)


def _has_too_many_digits(target: Path, kinds: dict[str, columns.Kind]) -> bool:
    """Return whether a column of integers has one that isn't taken for a number; none is changed by being taken."""
    footer = read_footer(target)
    integers = [] if footer is None else [each for each in footer.columns if kinds[each.name] is columns.Kind.INTEGER]
    return any(abs(bound) > columns.LARGEST for each in integers for bound in (each.min, each.max) if bound is not None)


def _scan(path: Path, layout: Layout, found: Oddities, schema: dict[str, Any]) -> Any:
    return importlib.import_module("polars").scan_csv(
        path,
        has_header=False,
        skip_rows=1,
        separator=layout.separator,
        schema={name: schema[name] for name in layout.names},
        null_values=columns.MISSING if found.words else columns.USUAL_MISSING,
    )


def _recoded(source: Path, target: Path, encoding: str) -> Path:
    try:
        with target.open("w", encoding="utf-8", newline="") as file:
            file.writelines(texts_of(source, encoding))
    except UnicodeError as error:
        raise _unreadable(f"it isn't all {encoding}: {error}") from None
    return target


def _head(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        head = file.read(_HEAD)
        is_whole = not file.read(1)
    return head if is_whole or "\n" not in head else head[: head.rindex("\n") + 1]


def _layout(head: str, separator: str) -> Layout:
    csv.field_size_limit(_LONGEST_FIELD)
    first = head.lstrip().partition("\n")[0].strip()
    named = _SEPARATOR_LINE.fullmatch(first)
    if named:
        separator, head = named[1], head.lstrip().partition("\n")[2]
    chosen = separator or max(_SEPARATORS, key=lambda candidate: _fit(head, candidate))
    header = next(_records(head, chosen), [])
    return Layout(separator=chosen, names=unique_names(header), skipped=1 if named else 0)


def _records(text: str, separator: str) -> Iterator[list[str]]:
    return (record for record in csv.reader(text.splitlines(keepends=True), delimiter=separator) if record)


def _fit(head: str, separator: str) -> tuple[float, int]:
    """Return how well a separator explains the first rows: the share that has as many fields as the header."""
    counts = []
    for record, _ in zip(_records(head, separator), range(_ROWS_TO_JUDGE_SEPARATOR), strict=False):
        counts.append(len(record))
    if not counts or counts[0] < 2:
        return 0.0, 0
    return Counter(counts)[counts[0]] / len(counts), counts[0]


def unique_names(header: Iterable[str]) -> list[str]:
    """Return names for columns: what comes a second time gets `_2`, what has no name its place, as `column_3`."""
    given = [name if name.strip() else f"column_{place}" for place, name in enumerate(header, start=1)]
    # What stands in the header keeps its name; only what is made up gives way.
    reserved, taken, names = set(given), set[str](), []
    for name in given:
        unique, number = name, 1
        while unique in taken or (unique != name and unique in reserved):
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique)
        names.append(unique)
    return names


class Clean(csv.Dialect):
    """How rows are written that were read record by record, for polars to read them."""

    #: The unit separator: stands in no text that people write, and tells a rewritten file from others.
    delimiter = "\x1f"
    quotechar = '"'
    doublequote = True
    #: Both are named so that the writer quotes either in a field.
    lineterminator = "\r\n"
    quoting = csv.QUOTE_MINIMAL


def _rewritten(path: Path, desk: Desk, layout: Layout) -> tuple[Path, Layout, Oddities]:
    target = desk.path("rewritten.csv")
    with (
        path.open(encoding="utf-8-sig", errors="strict", newline="") as source,
        target.open("w", encoding="utf-8", newline="") as file,
        _naming_lines() as at,
    ):
        reader = csv.reader(source, delimiter=layout.separator, strict=True)
        writer = csv.writer(file, dialect=Clean)
        for number, record in enumerate(_counted(reader, at)):
            if number >= layout.skipped:
                writer.writerow(_fitted(record, layout, line=at[0]))
    clean = Layout(separator=Clean.delimiter, names=layout.names, skipped=0)
    return target, clean, survey(target, clean.separator)


def _counted(reader: Any, at: list[int]) -> Iterator[list[str]]:
    """Yield the records that aren't blank; `at[0]` is the line on which the current one begins."""
    begins = 1
    for record in reader:
        at[0], begins = begins, reader.line_num + 1
        if record:
            yield record
        at[0] = begins


@contextmanager
def _naming_lines() -> Iterator[list[int]]:
    at = [1]
    try:
        yield at
    except csv.Error as error:
        raise _unreadable(f"line {at[0]}: {error}; is a quote not closed?") from None


def _fitted(record: list[str], layout: Layout, *, line: int) -> list[str]:
    wanted = len(layout.names)
    if len(record) > wanted and any(record[wanted:]):
        raise _unreadable(f"line {line} has {len(record)} fields, but the header names {wanted}")
    # Short ones are filled up with nothing, as every reader does.
    return record[:wanted] + [""] * (wanted - len(record))


def _unreadable(reason: str) -> TaskFailedError:
    return TaskFailedError("invalid_data", f"the data can't be read as CSV: {reason}")
