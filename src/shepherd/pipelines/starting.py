"""How runs begin, and how a publisher or a download moves them on. Each function is one transaction."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import transaction

from shepherd.domain.status import RunStatus, TaskStatus
from shepherd.errors import InvalidInputError
from shepherd.pipelines import sql
from shepherd.pipelines.advance import PUBLISHER, TASKS, Moved, open_next, open_tasks, run_changes
from shepherd.pipelines.changes import Change, write_changes
from shepherd.pipelines.filling import filled
from shepherd.pipelines.inputs import input_of
from shepherd.pipelines.intents import NextTask
from shepherd.pipelines.withdrawn import withdraw
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import NOTHING, Value

_NOTHING: Final = sql.document(NOTHING)

_NOT_PAUSED: Final = "project NOT IN (SELECT project FROM pipelines_pause)"


class UndecidedError(Exception):
    """Nobody can say yet who publishes a project's tasks; the text is the reason, empty if it isn't worth telling."""


#: Returns the names of a project's tasks that have a publisher of their own; None where only its flow can say so.
#: Must not wait, as all projects would: raises `UndecidedError` instead.
Leads = Callable[[str], Collection[str] | None]


def start(*, leads: Leads, is_followed: bool, limit: int, now: datetime) -> Moved:
    """Start accepted runs in the order of their acceptance, and open their first attempts where nothing is missing.

    `is_followed` says whether Prefect will be told of them.
    """
    # Outside of the transaction: it is the project's own code that answers.
    led = _decided([row["project"] for row in _accepted_projects()], leads)
    if not led:
        return Moved()
    with sql.transaction():
        runs = sql.rows(
            f"""SELECT number, id, project, pipeline_name, data_url, data FROM pipelines_run
                WHERE status = %s AND project IN {sql.places(list(led))} AND {_NOT_PAUSED}
                ORDER BY number LIMIT {int(limit)} {sql.for_update(skip_locked=True)}""",
            [RunStatus.ACCEPTED, *led],
        )
        return _begin(runs, led, is_followed=is_followed, now=now) if runs else Moved()


def _decided(projects: Sequence[str], leads: Leads) -> dict[str, Collection[str] | None]:
    """Return who leads what, by project; runs of those of which that can't be said yet say why they wait."""
    decided: dict[str, Collection[str] | None] = {}
    for project in projects:
        try:
            decided[project] = leads(project)
        except UndecidedError as error:
            _say_undecided(project, str(error))
    return decided


def _say_undecided(project: str, reason: str) -> None:
    if reason:
        # Said once; when it starts, a run's note becomes another one.
        sql.execute(
            """UPDATE pipelines_run SET prefect_note = %s
               WHERE status = %s AND project = %s AND prefect_note <> %s""",
            [reason, RunStatus.ACCEPTED, project, reason],
        )


def _accepted_projects() -> list[dict[str, Any]]:
    return sql.rows(
        f"SELECT DISTINCT project FROM pipelines_run WHERE status = %s AND {_NOT_PAUSED}", [RunStatus.ACCEPTED]
    )


def _begin(
    runs: Sequence[Mapping[str, Any]],
    led: Mapping[str, Collection[str] | None],
    *,
    is_followed: bool,
    now: datetime,
) -> Moved:
    numbers = [run["number"] for run in runs]
    padded = sql.padded(numbers)
    sql.execute(
        f"""UPDATE pipelines_run SET status = %s, started_at = %s, prefect_state = %s, prefect_note = %s
            WHERE number IN {sql.places(padded)}""",
        [RunStatus.RUNNING, sql.time(now), *following_state(is_followed), *padded],
    )
    write_changes(run_changes(numbers, RunStatus.ACCEPTED, RunStatus.RUNNING), at=now)
    _mark_led(runs, led)
    given = {run["number"]: run["data"] for run in runs if run["data"] is not None}
    to_fetch = {run["number"]: run["data_url"] for run in runs if run["data_url"] and run["number"] not in given}
    without = [number for number in numbers if number not in given and number not in to_fetch]
    _fill_data(without, _NOTHING)
    moved = Moved(started=len(runs), to_fetch=to_fetch)
    _open_first({**given, **dict.fromkeys(without, _NOTHING)}, moved, now)
    return moved


def following_state(is_followed: bool) -> tuple[str, str]:
    """Return what a run says of Prefect before a flow has it: the state, and the note beside it."""
    return ("waiting", "") if is_followed else ("absent", "SHEPHERD_PREFECT is off")


def set_data(run_number: int, data: Value, *, now: datetime) -> Moved:
    """Give a run the input of its first task, and open that task's attempt. A second call changes nothing."""
    moved = Moved()
    with sql.transaction():
        lacking = sql.rows(
            f"SELECT number FROM pipelines_run WHERE number = %s AND status = %s AND data IS NULL {sql.for_update()}",
            [run_number, RunStatus.RUNNING],
        )
        if lacking:
            document = sql.document(data)
            _fill_data([run_number], document)
            _open_first({run_number: document}, moved, now)
    return moved


def open_attempt(
    task_number: int,
    *,
    context: Mapping[str, Any] | None,
    data: Value | None,
    epoch: int | None = None,
    now: datetime,
) -> Moved:
    """Open a pending task's first attempt, with another context or input than its own if given.

    Moves nothing when there is nothing to publish: it was published before, its run has ended, or a Task Publisher
    later than that of `epoch` drives it. Fails the task when its context refers to what isn't there.

    Raises:
        InvalidInputError: They are more than a message may hold. Nothing was opened.
    """
    moved = Moved()
    with sql.transaction():
        task = _pending_task(task_number, epoch=epoch)
        if task is None:
            return moved
        own_data = sql.document(data) if data is not None else input_of(task)
        own_context = strict_json.dumps(context) if context is not None else task["context"]
        following = NextTask(task, own_context, own_data)
        if following.oversize:
            raise InvalidInputError.at("context", following.oversize)
        open_next([following], moved, now=now)
    return moved


def context_of(task_number: int, *, now: datetime) -> dict[str, Any] | TaskError:
    """Return the context of a task with what it refers to filled in, or why that can't be."""
    [row] = sql.rows(f"{TASKS} WHERE t.number = %s", [task_number])
    ready, unfit = filled([NextTask(row, row["context"], _NOTHING)], now=now)
    return unfit[0][1] if unfit else dict(strict_json.loads(ready[0].context))


def fail(
    run_number: int, error: TaskError, *, task_number: int | None = None, epoch: int | None = None, now: datetime
) -> Moved:
    """End a run that can't go on, and the task at which it stopped unless that one has ended by itself.

    Without a `task_number` that is the one that is in somebody's hands, or about to be, if there is one. Changes
    nothing when a Task Publisher later than that of `epoch` drives the run.
    """
    document = strict_json.dumps(error.to_wire())
    moved = Moved()
    with transaction.atomic():
        task = _unended_task(run_number, task_number) if task_number is not None else _task_in_hand(run_number)
        ended = sql.changed(
            """UPDATE pipelines_run SET status = %s, error = %s, finished_at = %s
               WHERE number = %s AND status = %s AND owner_epoch = COALESCE(%s, owner_epoch)""",
            [RunStatus.FAILED, document, sql.time(now), run_number, RunStatus.RUNNING, epoch],
        )
        if not ended:
            return moved
        changes = run_changes([run_number], RunStatus.RUNNING, RunStatus.FAILED, reason=error.message)
        if task is not None:
            changes.append(_fail_task(task, error, now))
            moved.has_withdrawn = True
            moved.ended_tasks.append(task["task_number"])
        write_changes(changes, at=now)
    return moved


def unfetched() -> dict[int, str]:
    """Return the `data_url` of every running run that still lacks its data, by number."""
    found = sql.rows(
        "SELECT number, data_url FROM pipelines_run WHERE status = %s AND data IS NULL ORDER BY number",
        [RunStatus.RUNNING],
    )
    return {row["number"]: row["data_url"] for row in found}


def _mark_led(runs: Iterable[Mapping[str, Any]], led: Mapping[str, Collection[str] | None]) -> None:
    by_project: dict[str, list[int]] = {}
    for run in runs:
        by_project.setdefault(run["project"], []).append(run["number"])
    for project, numbers in by_project.items():
        _mark_project_led(numbers, led[project])


def _mark_project_led(numbers: Sequence[int], names: Collection[str] | None) -> None:
    if names is not None and not names:
        return
    statement = f"UPDATE pipelines_task SET is_led = %s WHERE run_id IN {sql.places(numbers)}"
    parameters: list[Any] = [True, *numbers]
    if names is not None:
        chosen = sorted(names)
        statement += f" AND name IN {sql.places(chosen)}"
        parameters += chosen
    sql.execute(statement, parameters)


def _fill_data(numbers: Sequence[int], document: str) -> None:
    if numbers:
        numbers = sql.padded(numbers)
        sql.execute(f"UPDATE pipelines_run SET data = %s WHERE number IN {sql.places(numbers)}", [document, *numbers])


def _open_first(data: Mapping[int, str], moved: Moved, now: datetime) -> None:
    """Open the first task of each run in `data`, with its input."""
    if data:
        numbers = sql.padded(list(data))
        first = sql.rows(
            f"{TASKS} WHERE t.position = 0 AND t.run_id IN {sql.places(numbers)} ORDER BY t.number", numbers
        )
        open_tasks([(row, data[row["run_number"]]) for row in first], moved, now=now)


def _pending_task(number: int, *, epoch: int | None) -> dict[str, Any] | None:
    found = sql.rows(
        f"""{TASKS} WHERE t.number = %s AND t.status = 'pending' AND r.status = 'running' AND t.retry_at IS NULL
            AND r.owner_epoch = COALESCE(%s, r.owner_epoch) {sql.for_update(of="r, t")}""",
        [number, epoch],
    )
    return found[0] if found else None


def _unended_task(run_number: int, task_number: int) -> dict[str, Any] | None:
    found = sql.rows(
        f"""{TASKS} WHERE t.number = %s AND t.run_id = %s AND t.status IN ('pending', 'published', 'running')
            {sql.for_update(of="r, t")}""",
        [task_number, run_number],
    )
    return found[0] if found else None


def _task_in_hand(run_number: int) -> dict[str, Any] | None:
    found = sql.rows(
        f"""{TASKS} WHERE t.run_id = %s AND (t.status IN ('published', 'running') OR t.retry_at IS NOT NULL)
            ORDER BY t.number {sql.for_update(of="r, t")}""",
        [run_number],
    )
    return found[0] if found else None


def _fail_task(task: Mapping[str, Any], error: TaskError, now: datetime) -> Change:
    sql.execute(
        """UPDATE pipelines_task SET status = 'failed', error = %s, finished_at = %s, retry_at = NULL
           WHERE number = %s""",
        [strict_json.dumps(error.to_wire()), sql.time(now), task["task_number"]],
    )
    withdraw([task["task_number"]], now=now)
    numbers = (task["run_number"], task["task_number"], task["task_attempt_no"] or None)
    return Change(*numbers, task["task_status"], TaskStatus.FAILED, PUBLISHER, error.message)
