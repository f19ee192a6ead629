"""Storing new rows of models. The ORM makes the text of each statement anew, which takes as long as the statement."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models

from shepherd.pipelines import sql


def insert(row: models.Model) -> None:
    """Store a row, and give it the number by which the database calls it."""
    row.pk = sql.insert_one(*_table(type(row)), _values(row))
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS  # noqa: SLF001  # Django's own public name


def insert_many(rows: Sequence[models.Model]) -> None:
    """Store rows of one model. They don't learn their numbers."""
    if rows:
        sql.insert(*_table(type(rows[0])), [_values(row) for row in rows])


@lru_cache
def _table(model: type[models.Model]) -> tuple[str, list[str]]:
    fields = _fields(model)
    return model._meta.db_table, [str(field.column) for field in fields]  # noqa: SLF001  # Django's own public name


@lru_cache
def _fields(model: type[models.Model]) -> "list[models.Field[Any, Any]]":
    """Return all fields but the number, which the database makes."""
    return [field for field in model._meta.concrete_fields if not field.primary_key]  # noqa: SLF001


def _values(row: models.Model) -> list[Any]:
    return [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in _fields(type(row))]
