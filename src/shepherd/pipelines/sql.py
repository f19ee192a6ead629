"""A few words of SQL in which SQLite and PostgreSQL differ, and the plain way to run a statement."""

import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any, Final, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db import transaction as django_transaction

from shepherd.domain.policy import Policy, usable_policy_of
from shepherd.wire import strict_json
from shepherd.wire.value import Value

_T = TypeVar("_T")

#: What a column for the number of a row holds at most.
LARGEST_NUMBER: Final = 2**63 - 1
#: Well below the 32,766 parameters that a statement of SQLite takes at most.
_ROWS_AT_ONCE: Final = 1000
#: Seconds for which PostgreSQL goes by the plan of a prepared statement. It makes a new one by itself only when it has
#: counted a table's rows again, which takes it a minute: a table that was empty would be read as a whole until then.
_PLANS_LAST_S: Final = 2.0

#: How many texts of statements are remembered that have come once.
_TEXTS_KEPT: Final = 500
#: They hold no values, and are shared by all threads.
_ran: set[str] = set()


class _Here(threading.local):
    """What is so in one thread, which has a connection of its own."""

    def __init__(self) -> None:
        self.is_within_transaction = False
        #: By the monotonic clock.
        self.plans_made_at = monotonic()


_here = _Here()


@contextmanager
def transaction() -> Iterator[None]:
    """Do all or nothing, and let statements be sent before those before them are answered, where that can be.

    On PostgreSQL a fault of a statement that returns nothing is raised by a later one, or at the end; then no savepoint
    within helps. Nothing says how many rows a statement has changed, the ORM's included: lock and read them first.
    """
    with django_transaction.atomic(), _within_transaction():
        database = _database()
        if database.vendor == "sqlite":
            yield
        else:
            with database.wrap_database_errors, _first_fault(database), database.connection.pipeline():
                yield


@contextmanager
def _within_transaction() -> Iterator[None]:
    before = _here.is_within_transaction
    _here.is_within_transaction = True
    try:
        yield
    finally:
        _here.is_within_transaction = before


@contextmanager
def _first_fault(database: Any) -> Iterator[None]:
    """Raise what went wrong, where psycopg says of a later statement only that it was passed over."""
    try:
        yield
    except database.Database.errors.PipelineAborted as error:
        if isinstance(error.__context__, database.Database.Error):
            raise error.__context__ from None
        raise


def rows(statement: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
    with _executed(statement, list(parameters)) as cursor:
        found = cursor.fetchall()
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def execute(statement: str, parameters: Iterable[Any] = ()) -> None:
    """Run a statement."""
    with _executed(statement, list(parameters)):
        return


def changed(statement: str, parameters: Iterable[Any] = ()) -> int:
    """Run a statement and return how many rows it changed. Not within `transaction`, which doesn't wait for that."""
    if _here.is_within_transaction:
        raise django_transaction.TransactionManagementError("how many rows were changed isn't known here")
    with _executed(statement, list(parameters)) as cursor:
        return int(cursor.rowcount)


def execute_many(statement: str, parameters: Sequence[Sequence[Any]]) -> None:
    if parameters:
        with _executed(statement, parameters, is_many=True):
            return


def insert(table: str, columns: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    """Insert many rows. One by one: always the same text, which the database has compiled already."""
    execute_many(_insert(table, columns), values)


def insert_one(table: str, columns: Sequence[str], values: Sequence[Any]) -> int:
    """Insert a row and return its number."""
    return int(rows(f"{_insert(table, columns)} RETURNING number", values)[0]["number"])


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {places(columns)}"


def _database() -> Any:
    return connections[DEFAULT_DB_ALIAS]


@contextmanager
def _executed(statement: str, parameters: Sequence[Any], *, is_many: bool = False) -> Iterator[Any]:
    """Run a statement past Django's cursors, which cost as much as the statement itself, unless somebody watches."""
    database = _database()
    is_watched = database.connection is None or database.queries_logged or database.execute_wrappers
    with database.wrap_database_errors, closing(database.cursor() if is_watched else _bare(database)) as cursor:
        run = cursor.executemany if is_many else cursor.execute
        if is_watched:
            run(statement, parameters)
        elif database.vendor == "sqlite":
            run(_as_sqlite(statement), parameters)
        else:
            with _first_fault(database), _preparing(database, is_worth_it=is_many or _ran_before(statement)):
                run(statement, parameters)
        yield cursor


def _bare(database: Any) -> Any:
    database.validate_no_broken_transaction()
    if database.vendor == "sqlite":
        # Django's own class only turns `%s` into `?`, at each call anew.
        return database.connection.cursor(sqlite3.Cursor)
    if database.settings_dict["PREPARED_STATEMENTS"]:
        _renew_plans(database.connection)
    # Django's own puts the values into the text, so that nothing can be prepared.
    return database.Database.Cursor(database.connection)


def _renew_plans(connection: Any) -> None:
    now = monotonic()
    if now - _here.plans_made_at > _PLANS_LAST_S:
        _here.plans_made_at = now
        connection.execute("DISCARD PLANS")


def _ran_before(statement: str) -> bool:
    """Whether it is worth preparing: texts that come once are many."""
    if statement in _ran:
        return True
    if len(_ran) >= _TEXTS_KEPT:
        _ran.clear()
    _ran.add(statement)
    return False


@contextmanager
def _preparing(database: Any, *, is_worth_it: bool) -> Iterator[None]:
    """Have a statement prepared where that is worth it, and the database's address doesn't forbid it.

    Only while it is sent: psycopg would keep count of Django's statements, too, whose texts hold all their values.
    """
    connection = database.connection
    connection.prepare_threshold = 0 if is_worth_it and database.settings_dict["PREPARED_STATEMENTS"] else None
    try:
        yield
    finally:
        connection.prepare_threshold = None


@lru_cache(maxsize=512)
def _as_sqlite(statement: str) -> str:
    return statement.replace("%s", "?")


def places(values: Sequence[Any]) -> str:
    """Return the list of placeholders for `IN`, in parentheses."""
    return f"({', '.join(['%s'] * len(values))})"


def padded(values: Sequence[_T]) -> Sequence[_T]:
    """Return the values with the last one repeated up to a power of two: few lengths, so that texts are known.

    For `IN` only.
    """
    return [*values, *[values[-1]] * ((1 << (len(values) - 1).bit_length()) - len(values))] if values else values


def chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE))


def for_update(*, of: str = "", skip_locked: bool = False) -> str:
    """Return the clause that locks the rows read. SQLite needs none: its transactions are IMMEDIATE."""
    if _database().vendor != "postgresql":
        return ""
    return f"FOR UPDATE{f' OF {of}' if of else ''}{' SKIP LOCKED' if skip_locked else ''}"


def time(at: datetime) -> Any:
    """Return what the database takes for an aware time."""
    return at if _database().vendor == "postgresql" else str(at.astimezone(UTC).replace(tzinfo=None))


def as_time(found: Any) -> datetime:
    """Return a time that was read past Django's columns, in UTC."""
    at = found if isinstance(found, datetime) else datetime.fromisoformat(found)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def earlier(at: datetime, seconds: float) -> Any:
    return time(at - timedelta(seconds=min(max(seconds, 0.0), 3.2e9)))


def from_now(seconds: float = 0.0) -> str:
    """Return an expression: so many seconds after the time by the database's own clock."""
    if _database().vendor == "postgresql":
        return f"STATEMENT_TIMESTAMP() + INTERVAL '{seconds:.6f} seconds'"
    # SQLite has no clock but this machine's, and no text for a time that compares well with the stored ones.
    return f"'{time(datetime.now(UTC) + timedelta(seconds=seconds))}'"


def database_time() -> datetime:
    """Return the time by the database's own clock."""
    if _database().vendor != "postgresql":
        return datetime.now(UTC)
    found: datetime = rows("SELECT STATEMENT_TIMESTAMP() AS now")[0]["now"]
    return found


def as_uuid(found: Any) -> uuid.UUID:
    return found if isinstance(found, uuid.UUID) else uuid.UUID(found)


def from_uuid(value: uuid.UUID) -> Any:
    return value if _database().features.has_native_uuid_field else value.hex


def text(value: str, limit: int) -> str:
    """Return a text that a column takes: cut at its length, without NUL, which PostgreSQL refuses."""
    if value.isascii() and "\0" not in value:
        return value[:limit]
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")[:limit]


def document(value: Value) -> str:
    """Return the JSON text under which a value is stored, and sent."""
    return strict_json.dumps(value.to_wire())


@lru_cache(maxsize=1000)
def policy(document: str) -> Policy:
    """Return a stored policy. Policies are few, and tasks many."""
    # Without what a later version may have written, or what is wrong: one policy must not keep all tasks waiting.
    return Policy.of(usable_policy_of(strict_json.loads(document)))
