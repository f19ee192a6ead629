"""A database that refuses a value, as it refuses any that it can't take."""

from django.db import connection


def refuse(table: str, column: str, value: str, *, on: str) -> None:
    """Make the database refuse this value in a column from now on; `on` is `INSERT` or `UPDATE`."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"ALTER TABLE {table} ADD CHECK ({column} <> '{value}')")
        else:
            cursor.execute(
                f"""CREATE TRIGGER refuse BEFORE {on} ON {table} WHEN NEW.{column} = '{value}'
                    BEGIN SELECT RAISE(ABORT, 'no such {column}'); END"""
            )
