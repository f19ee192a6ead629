"""A few words of SQL in which SQLite and PostgreSQL differ, and the plain way to run a statement."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from django.db import connection

from shepherd.wire import strict_json
from shepherd.wire.value import Value, parse_value

_T = TypeVar("_T")

#: Well below SQLite's limit of 32,766 parameters a statement, at up to 12 columns a row.
_ROWS_AT_ONCE: Final = 1000


def rows(statement: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, list(parameters))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def execute(statement: str, parameters: Iterable[Any] = ()) -> int:
    """Run a statement and return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, list(parameters))
        return int(cursor.rowcount)


def execute_many(statement: str, parameters: Sequence[Sequence[Any]]) -> None:
    if parameters:
        with connection.cursor() as cursor:
            cursor.executemany(statement, parameters)


def insert(table: str, columns: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    """Insert many rows with one statement for each thousand."""
    one = f"({', '.join(['%s'] * len(columns))})"
    for chunk in chunks(values):
        execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * len(chunk))}",
            [part for row in chunk for part in row],
        )


def places(values: Sequence[Any]) -> str:
    """Return the list of placeholders for `IN`, in parentheses."""
    return f"({', '.join(['%s'] * len(values))})"


def chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE))


def for_update(*, of: str = "", skip_locked: bool = False) -> str:
    """Return the clause that locks the rows read. SQLite needs none: its transactions are IMMEDIATE."""
    if connection.vendor != "postgresql":
        return ""
    return f"FOR UPDATE{f' OF {of}' if of else ''}{' SKIP LOCKED' if skip_locked else ''}"


def time(at: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(at)


def earlier(at: datetime, seconds: float) -> Any:
    return time(at - timedelta(seconds=min(max(seconds, 0.0), 3.2e9)))


def as_uuid(found: Any) -> uuid.UUID:
    return found if isinstance(found, uuid.UUID) else uuid.UUID(found)


def from_uuid(value: uuid.UUID) -> Any:
    return value if connection.features.has_native_uuid_field else value.hex


def text(value: str, limit: int) -> str:
    """Return a text that a column takes: cut at its length, without NUL, which PostgreSQL refuses."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")[:limit]


def value(document: str) -> Value:
    return parse_value(strict_json.loads(document), path="data")
