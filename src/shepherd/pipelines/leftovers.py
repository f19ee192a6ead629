"""What lies in the store and no run needs any more."""

import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from shepherd.pipelines import sql
from shepherd.store.port import Store, StoredObject

#: Where objects of runs lie; what is put elsewhere isn't looked at.
RUNS: Final = "runs"
_KEY: Final = re.compile(r"runs/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/[A-Za-z0-9_./-]+")
#: Objects that are compared with all rows at once.
_OBJECTS_AT_ONCE: Final = 20_000
_ROWS_AT_ONCE: Final = 1000
#: Wherever a claim check may stand: the run's number, and texts.
_TEXTS: Final = (
    "SELECT number, number AS run, data AS a, NULL AS b, NULL AS c FROM pipelines_run",
    "SELECT number, run_id AS run, context AS a, corrected_context AS b, result AS c FROM pipelines_task",
    """SELECT a.number, t.run_id AS run, a.context AS a, a.data AS b, NULL AS c FROM pipelines_attempt a
       JOIN pipelines_task t ON t.number = a.task_id""",
)


def leftovers(store: Store, *, before: datetime, without: Collection[int] = ()) -> Iterator[list[StoredObject]]:
    """Return objects of runs that don't exist, that no row names, and that were put before a time; some at a time.

    A run may need what an earlier one left: when it was run again, or goes on from it. What lies beside an object that
    a row names stays, too, since one object may be the list of others. `without` are numbers of runs that are taken
    for removed.
    """
    candidates: list[StoredObject] = []
    gone = frozenset(without)
    for found in _batches(store.list(RUNS), before=before):
        # In this order: a run that was removed left its objects to those that were made from it before.
        candidates += _of_no_run(found, gone)
        if len(candidates) >= _OBJECTS_AT_ONCE:
            yield _unnamed(candidates, gone)
            candidates = []
    if candidates:
        yield _unnamed(candidates, gone)


def _batches(listed: Iterable[StoredObject], *, before: datetime) -> Iterator[list[StoredObject]]:
    batch: list[StoredObject] = []
    for each in listed:
        if each.modified_at < before and _KEY.fullmatch(each.key):
            batch.append(each)
        if len(batch) >= _ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_no_run(found: list[StoredObject], gone: frozenset[int]) -> list[StoredObject]:
    ids = sorted({_run_id(each.key) for each in found})
    rows = sql.rows(
        f"SELECT number, id FROM pipelines_run WHERE id IN {sql.places(ids)}",
        [sql.from_uuid(uuid.UUID(each)) for each in ids],
    )
    there = {str(sql.as_uuid(row["id"])) for row in rows if row["number"] not in gone}
    return [each for each in found if _run_id(each.key) not in there]


def _unnamed(candidates: list[StoredObject], gone: frozenset[int]) -> list[StoredObject]:
    ids = {_run_id(each.key) for each in candidates}
    named = {_folder(key) for key in _named_keys(ids, gone)}
    return [each for each in candidates if _folder(each.key) not in named]


def _named_keys(ids: Collection[str], gone: frozenset[int]) -> Iterator[str]:
    """Return every key of one of these runs that a row names."""
    for select in _TEXTS:
        for row in _rows(select):
            if row["run"] in gone:
                continue
            for text in (row["a"], row["b"], row["c"]):
                yield from (key[0] for key in _KEY.finditer(text or "") if key[1] in ids)


def _rows(select: str) -> Iterator[dict[str, Any]]:
    after = 0
    statement = f"SELECT * FROM ({select}) texts WHERE number > %s ORDER BY number LIMIT {_ROWS_AT_ONCE}"
    while found := sql.rows(statement, [after]):
        yield from found
        after = found[-1]["number"]


def _run_id(key: str) -> str:
    return key.split("/", 2)[1]


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
