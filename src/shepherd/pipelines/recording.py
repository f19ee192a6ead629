"""How answers become history: the one transaction that stores results and opens what follows."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shepherd.domain.status import AttemptStatus, RunStatus, TaskStatus
from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS, TASKS, Moved, end_runs, open_tasks, task_change
from shepherd.pipelines.batch import Batch, Pair
from shepherd.pipelines.changes import write_changes
from shepherd.pipelines.leases import record_claims
from shepherd.pipelines.setbacks import Draw, record_setbacks
from shepherd.pipelines.withdrawn import note_answered, withdraw
from shepherd.wire import strict_json
from shepherd.wire.envelope import Finished, Reply, Started
from shepherd.wire.value import NOTHING


def record(replies: Sequence[Reply], *, now: datetime, draw: Draw = random.random) -> Moved:
    """Store how attempts went and open the tasks that follow, all in one transaction.

    Safe to call again with the same replies, from any process, in any order: only the first answer to an
    unfinished attempt counts, any other changes nothing. The caller publishes the intents, and acks the
    replies only after this has returned. `draw` says how long, of the longest pause, a retry waits.
    """
    with sql.transaction():
        attempts = locked_attempts([reply.token for reply in replies])
        batch = Batch(overtaken=_overtaken(replies, attempts))
        for reply in replies:
            batch.add(reply, attempts.get(reply.token))
        moved = Moved(dropped=batch.dropped)
        _record_started(batch.begun(), now)
        record_claims(batch.taken_over(), now=now)
        _withdraw_newer(batch.late, moved, now)
        _record_succeeded(batch.succeeded, moved, now)
        _record_work(batch.failed, now)
        record_setbacks(batch.setbacks, moved, now=now, draw=draw)
        note_answered(batch.gone)
    return moved


def locked_attempts(tokens: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of `ATTEMPTS` of these tokens, locked until the caller's transaction ends."""
    if not tokens:
        return {}
    tokens = sql.padded(tokens)
    found = sql.rows(
        # By number, so that two Task Publishers lock in the same order.
        f"{ATTEMPTS} WHERE a.token IN {sql.places(tokens)} ORDER BY a.number {sql.for_update(of='r, t, a')}",
        tokens,
    )
    return {row["token"]: row for row in found}


def _record_started(pairs: Sequence[Pair[Started]], now: datetime) -> None:
    fresh = [(reply, row) for reply, row in pairs if row["attempt_status"] == AttemptStatus.PUBLISHED]
    sql.execute_many(
        "UPDATE pipelines_attempt SET status = 'running', worker = %s, started_at = %s WHERE number = %s",
        [(sql.text(reply.worker, 255), sql.time(now), row["attempt_number"]) for reply, row in fresh],
    )
    sql.execute_many(
        "UPDATE pipelines_task SET status = 'running', started_at = %s WHERE number = %s AND status = 'published'",
        [(sql.time(now), row["task_number"]) for _, row in fresh],
    )
    write_changes([task_change(row, TaskStatus.RUNNING, by=reply.worker) for reply, row in fresh], at=now)


def _record_succeeded(pairs: Sequence[Pair[Finished]], moved: Moved, now: datetime) -> None:
    at = sql.time(now)
    results = [sql.document(reply.result or NOTHING) for reply, _ in pairs]
    sql.execute_many(
        f"""UPDATE pipelines_attempt SET status = 'succeeded', is_queued = FALSE, worker = %s, error = NULL,
           log_lines = %s, finished_at = %s, confirmed_at = COALESCE(confirmed_at, %s), started_at = {_BEGUN}
           WHERE number = %s""",
        [
            (sql.text(reply.worker, 255), reply.log_lines, at, at, *_begun(reply, now), row["attempt_number"])
            for reply, row in pairs
        ],
    )
    sql.execute_many(
        f"""UPDATE pipelines_task SET status = 'succeeded', result = %s, card = %s, error = NULL, finished_at = %s,
           started_at = {_BEGUN} WHERE number = %s""",
        [
            (result, _card(reply), at, *_begun(reply, now), row["task_number"])
            for result, (reply, row) in zip(results, pairs, strict=True)
        ],
    )
    write_changes(
        [task_change(row, TaskStatus.SUCCEEDED, by=reply.worker, reason=_lateness(row)) for reply, row in pairs], at=now
    )
    moved.ended_tasks += [row["task_number"] for _, row in pairs]
    _advance([(row, result) for result, (_, row) in zip(results, pairs, strict=True)], moved, now)


def _card(reply: Finished) -> str | None:
    return None if reply.card is None else strict_json.dumps(reply.card)


def _lateness(row: Mapping[str, Any]) -> str:
    return "after all: it had been given up as lost" if row["attempt_status"] == AttemptStatus.LOST else ""


def _record_work(pairs: Sequence[Pair[Finished]], now: datetime) -> None:
    """Store who worked on what didn't succeed, and since when; how it ended is written elsewhere."""
    sql.execute_many(
        f"UPDATE pipelines_attempt SET worker = %s, log_lines = %s, started_at = {_BEGUN} WHERE number = %s",
        [
            (sql.text(reply.worker, 255), reply.log_lines, *_begun(reply, now), row["attempt_number"])
            for reply, row in pairs
        ],
    )
    sql.execute_many(
        f"UPDATE pipelines_task SET started_at = {_BEGUN} WHERE number = %s",
        [(*_begun(reply, now), row["task_number"]) for reply, row in pairs],
    )


def _overtaken(replies: Sequence[Reply], attempts: Mapping[str, Mapping[str, Any]]) -> set[int]:
    """Return the tasks of lost attempts that another worker has claimed since."""
    lost = {
        row["task_number"]
        for reply in replies
        if isinstance(reply, Finished)
        and (row := attempts.get(reply.token)) is not None
        and row["attempt_status"] == AttemptStatus.LOST
    }
    if not lost:
        return set()
    claimed = sql.rows(
        f"""SELECT DISTINCT task_id FROM pipelines_attempt WHERE task_id IN {sql.places(list(lost))}
            AND status IN ('published', 'running') AND claimed_at IS NOT NULL""",
        lost,
    )
    return {row["task_id"] for row in claimed}


def _withdraw_newer(task_numbers: Sequence[int], moved: Moved, now: datetime) -> None:
    """Take back what was opened in place of attempts that have succeeded after all."""
    if task_numbers:
        withdraw(task_numbers, now=now)
        sql.execute(
            f"UPDATE pipelines_task SET retry_at = NULL WHERE number IN {sql.places(task_numbers)}", task_numbers
        )
        moved.has_withdrawn = True


def _advance(pairs: Sequence[tuple[Mapping[str, Any], str]], moved: Moved, now: datetime) -> None:
    """Open what follows each success, or end its run."""
    results = {row["run_number"]: (row, result) for row, result in pairs}
    if not results:
        return
    following = {row["run_number"]: row for row in _following(results)}
    over = [number for number in results if number not in following]
    end_runs(over, RunStatus.SUCCEEDED, now=now)
    # A publisher that has the run in hand may still change the data: only its flow goes on from there.
    unled = [(row, results[number][1]) for number, row in following.items() if not results[number][0]["is_led"]]
    moved.led_runs += [number for number in following if results[number][0]["is_led"]]
    open_tasks(unled, moved, now=now)


def _following(results: Mapping[int, tuple[Mapping[str, Any], str]]) -> list[dict[str, Any]]:
    ended = sql.padded([row["task_number"] for row, _ in results.values()])
    # By way of the ended task: for a pair of columns IN a list of pairs SQLite reads the whole table. And the run's
    # status is looked at here: with more than some thirty tasks SQLite would begin with all runs that are running.
    found = sql.rows(
        f"""{TASKS} JOIN pipelines_task ended ON ended.run_id = t.run_id AND ended.position = t.position - 1
            WHERE ended.number IN {sql.places(ended)} AND t.status = 'pending' ORDER BY t.number""",
        ended,
    )
    return [row for row in found if row["run_status"] == RunStatus.RUNNING]


#: Not later than the worker's own measure says: a `started` may have waited in the queue beside its `finished`.
_BEGUN = "CASE WHEN started_at IS NULL OR started_at > %s THEN %s ELSE started_at END"


def _begun(reply: Finished, now: datetime) -> tuple[Any, Any]:
    at = sql.earlier(now, reply.elapsed_s)
    return at, at
