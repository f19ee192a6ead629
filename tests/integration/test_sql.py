"""What statements past the ORM promise on both engines, and what PostgreSQL's prepared ones must not cost."""

import select
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, connection
from django.db.transaction import TransactionManagementError

from shepherd.pipelines import sql
from shepherd.pipelines.models import DeadMessage

_FOUR = "SELECT key FROM things WHERE number IN (%s, %s, %s, %s)"
#: How often a statement is executed before PostgreSQL thinks of a plan for any values, and some more.
_OFTEN = 12


@pytest.fixture
def things() -> None:
    """An empty table, whose rows PostgreSQL takes for long ones and so for few."""
    fillers = ", ".join(f"filler_{n} TEXT" for n in range(20))
    sql.execute(f"CREATE TABLE things (number BIGINT PRIMARY KEY, key VARCHAR(20) UNIQUE, {fillers})")


def keys() -> list[str]:
    return [row["key"] for row in sql.rows("SELECT key FROM things ORDER BY number")]


@pytest.mark.usefixtures("database", "things")
def test_of_a_transaction_nothing_is_left_when_a_statement_that_returns_nothing_is_refused() -> None:
    sql.insert("things", ("number", "key"), [(1, "first")])

    @sql.transaction()
    def second_becomes_first() -> None:
        sql.insert("things", ("number", "key"), [(2, "second")])
        sql.execute("UPDATE things SET key = %s WHERE number = %s", ["first", 2])
        sql.execute("UPDATE things SET key = %s WHERE number = %s", ["third", 1])

    with pytest.raises(IntegrityError):
        second_becomes_first()

    assert keys() == ["first"]


@pytest.mark.usefixtures("database", "things")
def test_within_a_transaction_each_statement_sees_those_before_it() -> None:
    with sql.transaction():
        sql.insert("things", ("number", "key"), [(number, f"key {number}") for number in range(13)])
        sql.execute("UPDATE things SET number = number + %s WHERE number >= %s", [100, 10])
        sql.execute_many("UPDATE things SET key = %s WHERE number = %s", [("last", 112), ("none", 113)])
        seen = keys()

    assert seen == [*(f"key {number}" for number in range(12)), "last"]
    assert keys() == seen


@pytest.mark.usefixtures("database", "things")
def test_a_transaction_that_is_given_up_leaves_nothing_behind_and_the_next_one_works() -> None:
    @sql.transaction()
    def give_up() -> None:
        sql.insert("things", ("number", "key"), [(1, "first")])
        raise KeyError

    with pytest.raises(KeyError):
        give_up()

    with sql.transaction():
        sql.insert("things", ("number", "key"), [(2, "second")])

    assert keys() == ["second"]


@pytest.mark.usefixtures("database", "things")
def test_a_change_says_how_many_rows_it_was() -> None:
    sql.insert("things", ("number", "key"), [(number, f"key {number}") for number in range(13)])

    assert sql.changed("UPDATE things SET number = number + %s WHERE number >= %s", [100, 10]) == 3
    assert sql.changed("DELETE FROM things WHERE number = %s", [500]) == 0


@pytest.mark.usefixtures("database", "things")
def test_within_a_transaction_nobody_is_told_how_many_rows_a_change_was() -> None:
    with pytest.raises(TransactionManagementError), sql.transaction():
        sql.changed("UPDATE things SET number = number")

    assert sql.changed("UPDATE things SET number = number") == 0


@pytest.mark.usefixtures("postgres_database", "things")
def test_the_first_fault_is_told_also_when_many_statements_were_prepared_before() -> None:
    sql.insert("things", ("number", "key"), [(1, "first"), (2, "second")])
    # Two of which the first has to go.
    connection.connection.prepared_max = 1
    sql.execute_many("UPDATE things SET number = number WHERE key = %s", [("x",)])

    @sql.transaction()
    def second_becomes_first() -> None:
        sql.execute_many("UPDATE things SET key = key WHERE key = %s", [("x",)])
        sql.rows("SELECT 1 AS x")
        sql.execute_many("UPDATE things SET key = %s WHERE number = %s", [("first", 2)])
        # The refusal is there when the end is reached.
        select.select([connection.connection.pgconn.socket], [], [], 20)

    with pytest.raises(IntegrityError):
        second_becomes_first()


@pytest.mark.usefixtures("postgres_database")
def test_what_djangos_own_statements_hold_is_not_kept() -> None:
    for _ in range(_OFTEN):
        sql.rows("SELECT %s AS x", [1])
    for number in range(3):
        DeadMessage.objects.create(source="s", reason="x" * 2**20, body=f"{number}", at=datetime.now(UTC))
    kept = connection.connection._prepared  # psycopg says nowhere else what it keeps

    assert kept._names
    assert sum(len(text) for text, _ in [*kept._counts, *kept._names]) < 2**16


@pytest.mark.usefixtures("postgres_database", "things")
def test_nothing_is_prepared_where_the_address_says_so() -> None:
    connection.settings_dict["PREPARED_STATEMENTS"] = False
    for number in range(_OFTEN):
        sql.rows(_FOUR, range(4))
        sql.insert("things", ("number", "key"), [(number, f"key {number}")])

    assert sql.rows("SELECT name FROM pg_prepared_statements") == []


@pytest.mark.usefixtures("postgres_database", "things")
def test_a_statement_prepared_on_an_empty_table_is_planned_anew_when_that_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sql, "_PLANS_LAST_S", float("inf"))
    for _ in range(_OFTEN):
        sql.rows(_FOUR, range(4))
    sql.insert("things", ("number", "key"), [(number, f"key {number}") for number in range(50_000)])

    assert "Seq Scan" in plan_of_four()

    monkeypatch.setattr(sql, "_PLANS_LAST_S", 0.0)
    sql.rows(_FOUR, range(4))

    assert "Seq Scan" not in plan_of_four()


def plan_of_four() -> str:
    """Return how the session executes the statement that it has prepared."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT key FROM things WHERE%'")
        ((name,),) = cursor.fetchall()
        cursor.execute(f"EXPLAIN EXECUTE {name} (0, 1, 2, 3)")
        return "\n".join(line for (line,) in cursor.fetchall())
