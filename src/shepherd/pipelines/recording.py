"""How answers become history: the one transaction that stores results and opens what follows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from shepherd.domain.status import (
    ENDED_RUN,
    UNFINISHED_ATTEMPT,
    UNFINISHED_TASK,
    AttemptStatus,
    RunStatus,
    TaskStatus,
)
from shepherd.pipelines import sql
from shepherd.pipelines.advance import ATTEMPTS, TASKS, Moved, end_runs, open_tasks, task_change
from shepherd.pipelines.changes import Change, write_changes
from shepherd.wire import strict_json
from shepherd.wire.envelope import Finished, Reply, Started, TaskError
from shepherd.wire.value import NOTHING


def record(replies: Sequence[Reply], *, now: datetime) -> Moved:
    """Store how attempts went and open the tasks that follow, all in one transaction.

    Safe to call again with the same replies, from any process, in any order: only the first answer to an
    unfinished attempt counts, any other changes nothing. The caller publishes the intents, and acks the
    replies only after this has returned.
    """
    with transaction.atomic():
        attempts = _attempts([reply.token for reply in replies])
        moved = Moved()
        started: list[tuple[Started, dict[str, Any]]] = []
        finished: dict[str, tuple[Finished, dict[str, Any]]] = {}
        for reply in replies:
            attempt = attempts.get(reply.token)
            # No row is no fault: a redelivered reply came second to the first.
            if attempt is None or reply.token in finished or not _is_open(attempt):
                moved.dropped += 1
            elif isinstance(reply, Finished):
                finished[reply.token] = (reply, attempt)
            elif isinstance(reply, Started):
                started.append((reply, attempt))
        _record_started([pair for pair in started if pair[0].token not in finished], now)
        _record_finished(list(finished.values()), moved, now)
    return moved


def _attempts(tokens: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not tokens:
        return {}
    tokens = sql.padded(tokens)
    found = sql.rows(
        # By number, so that two Task Publishers lock in the same order.
        f"{ATTEMPTS} WHERE a.token IN {sql.places(tokens)} ORDER BY a.number {sql.for_update(of='a, t, r')}",
        tokens,
    )
    return {row["token"]: row for row in found}


def _record_started(pairs: Sequence[tuple[Started, dict[str, Any]]], now: datetime) -> None:
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


def _record_finished(pairs: Sequence[tuple[Finished, dict[str, Any]]], moved: Moved, now: datetime) -> None:
    at = sql.time(now)
    outcomes = [_outcome(reply) for reply, _ in pairs]
    sql.execute_many(
        f"""UPDATE pipelines_attempt SET status = %s, worker = %s, error = %s, log_lines = %s, finished_at = %s,
           confirmed_at = COALESCE(confirmed_at, %s), started_at = {_BEGUN} WHERE number = %s""",
        [
            (
                *_ending(reply),
                reply.log_lines,
                at,
                at,
                *_begun(reply, now),
                row["attempt_number"],
            )
            for reply, row in pairs
        ],
    )
    sql.execute_many(
        f"""UPDATE pipelines_task SET status = %s, result = %s, error = %s, finished_at = %s,
           started_at = {_BEGUN} WHERE number = %s""",
        [
            (*outcome, at, *_begun(reply, now), row["task_number"])
            for outcome, (reply, row) in zip(outcomes, pairs, strict=True)
        ],
    )
    write_changes([_ended_change(reply, row) for reply, row in pairs], at=now)
    moved.ended_tasks += [row["task_number"] for _, row in pairs]
    results = [result for _, result, _ in outcomes]
    _advance([(row, result) for result, (_, row) in zip(results, pairs, strict=True) if result is not None], moved, now)
    end_runs([row["run_number"] for reply, row in pairs if reply.error is not None], RunStatus.FAILED, now=now)


def _advance(pairs: Sequence[tuple[dict[str, Any], str]], moved: Moved, now: datetime) -> None:
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
    # By way of the ended task: for a pair of columns IN a list of pairs SQLite reads the whole table.
    return sql.rows(
        f"""{TASKS} JOIN pipelines_task ended ON ended.run_id = t.run_id AND ended.position = t.position - 1
            WHERE ended.number IN {sql.places(ended)} AND t.status = 'pending' AND r.status = 'running'
            ORDER BY t.number""",
        ended,
    )


def _is_open(row: Mapping[str, Any]) -> bool:
    is_latest = row["attempt_no"] == row["task_attempt_no"]
    is_unfinished = row["attempt_status"] in UNFINISHED_ATTEMPT and row["task_status"] in UNFINISHED_TASK
    return is_latest and is_unfinished and row["run_status"] not in ENDED_RUN


def _ending(reply: Finished) -> tuple[str, str, str | None]:
    status = AttemptStatus.FAILED if reply.error else AttemptStatus.SUCCEEDED
    return status.value, sql.text(reply.worker, 255), _error_document(reply.error)


def _outcome(reply: Finished) -> tuple[str, str | None, str | None]:
    if reply.error is not None:
        return TaskStatus.FAILED.value, None, _error_document(reply.error)
    return TaskStatus.SUCCEEDED.value, sql.document(reply.result or NOTHING), None


#: Not later than the worker's own measure says: a `started` may have waited in the queue beside its `finished`.
_BEGUN = "CASE WHEN started_at IS NULL OR started_at > %s THEN %s ELSE started_at END"


def _begun(reply: Finished, now: datetime) -> tuple[Any, Any]:
    at = sql.earlier(now, reply.elapsed_s)
    return at, at


def _error_document(error: TaskError | None) -> str | None:
    return None if error is None else strict_json.dumps(error.to_wire())


def _ended_change(reply: Finished, row: Mapping[str, Any]) -> Change:
    return task_change(row, _ending(reply)[0], by=reply.worker, reason=reply.error.message if reply.error else "")
