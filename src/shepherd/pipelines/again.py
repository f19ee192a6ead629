"""Runs made from earlier ones. A pipeline never changes once accepted, so each of these is a run of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from shepherd.domain.pipeline import MAX_TASKS, PipelineSpec, TaskSpec
from shepherd.domain.policy import effective
from shepherd.domain.references import Step
from shepherd.domain.status import ENDED_RUN, TaskStatus
from shepherd.errors import ConflictError, InvalidInputError, NotFoundError
from shepherd.pipelines.acceptance import Accepted, accept
from shepherd.pipelines.corrections import corrected_tasks
from shepherd.pipelines.filling import carried_over
from shepherd.pipelines.models import Run, Task
from shepherd.wire import strict_json
from shepherd.wire.value import Value, parse_value


@dataclass(frozen=True, slots=True, kw_only=True)
class _EarlierTask(TaskSpec):
    """A task of an earlier run, which has no place in what the caller sent now."""

    run_number: int

    @property
    def path(self) -> str:
        return f"runs[{self.run_number}].transformers_list[{self.index}]"


@transaction.atomic
def run_again(
    number: int,
    *,
    labels: Mapping[str, Any],
    by: User,
    now: datetime,
    contexts: Mapping[str, Any] | None = None,
    sample_rows: int | None = None,
    idempotency_key: str | None = None,
    body_sha256: str = "",
) -> Accepted:
    """Accept the pipeline of run `number` once more, as a run that names it as its origin.

    It has the same tasks, policies and input, and the contexts as a resume corrected them; `labels` go over its own,
    `contexts` (as `corrected_tasks` takes them) over those. It is a sample if that one was, unless `sample_rows` says
    otherwise: so many rows, 0 for all. Each call makes a run, unless the key says otherwise.

    Raises:
        NotFoundError: There is no such run.
        ConflictError: As `accept`.
        InvalidInputError: What was accepted then isn't any more: its project is gone, or what a task takes has changed.
    """
    run, tasks = _earlier(number)
    corrected = corrected_tasks(tasks, contexts or {}, keeps_succeeded=False, now=now)
    again = [_again(run, task) for task in tasks]
    again = [replace(spec, context=corrected.get(spec.index, spec.context)) for spec in again]
    spec = _spec(run, again, data_url=run.data_url)
    return accept(
        spec if sample_rows is None else replace(spec, sample_rows=sample_rows or None),
        by=by,
        now=now,
        labels={**run.labels, **labels},
        data=_first_input(run),
        origin=number,
        idempotency_key=idempotency_key,
        body_sha256=body_sha256,
    )


@transaction.atomic
def append_tasks(
    number: int, tasks: Sequence[TaskSpec], *, labels: Mapping[str, Any], by: User, now: datetime
) -> Accepted:
    """Accept a run that goes on from where run `number` ended: with its tasks that didn't succeed, then with `tasks`.

    What succeeded isn't repeated: the new run begins with the data that the last succeeded task returned. Each call
    makes a run.

    Raises:
        NotFoundError: There is no such run.
        ConflictError: It hasn't ended yet. Call again when it has.
        InvalidInputError: As `run_again`, of the appended tasks too; or they are too many.
    """
    run, earlier = _earlier(number)
    if run.status not in ENDED_RUN:
        raise ConflictError(f"run {number} has not ended yet: tasks can be appended once it has")
    succeeded = list(takewhile(lambda task: task.status == TaskStatus.SUCCEEDED, earlier))
    # What they refer to among those that succeeded, nobody finds in the new run.
    results = {_step(task): _text(task) if task.position < len(succeeded) else None for task in earlier}
    left = [_carried_over(_again(run, task), results) for task in earlier[len(succeeded) :]]
    if len(left) + len(tasks) > MAX_TASKS:
        reason = f"may name at most {MAX_TASKS - len(left)} tasks: {len(left)} of run {number} did not succeed"
        raise InvalidInputError.at("transformers_list", reason)
    data = parse_value(succeeded[-1].result, path="result") if succeeded else _first_input(run)
    spec = _spec(run, [*left, *tasks], data_url="" if succeeded else run.data_url)
    return accept(spec, by=by, now=now, labels={**run.labels, **labels}, data=data)


def _earlier(number: int) -> tuple[Run, list[Task]]:
    # Locked: what it left in the store must not be pruned before the new run names it.
    run = Run.objects.select_for_update(of=("self",)).filter(number=number).first()
    if run is None:
        raise NotFoundError(f"there is no run {number}")
    return run, list(run.tasks.order_by("position"))


def _again(run: Run, task: Task) -> TaskSpec:
    return _EarlierTask(
        order_no=task.order_no,
        name=task.name,
        context=task.effective_context,
        index=task.position,
        # All five fields: what its project or author say today doesn't count for it.
        policy=effective(task.policy),
        run_number=run.number,
    )


def _step(task: Task) -> Step:
    return Step(task.position, task.order_no, task.name)


def _text(task: Task) -> str:
    return strict_json.dumps(task.result)


def _carried_over(spec: TaskSpec, results: Mapping[Step, str | None]) -> TaskSpec:
    context = carried_over(spec.context, results, position=spec.index, path=spec.context_path)
    if not isinstance(context, dict):
        raise InvalidInputError.at(spec.context_path, "must be an object, and the result that it is to be is none")
    return replace(spec, context=context)


def _spec(run: Run, tasks: Sequence[TaskSpec], *, data_url: str) -> PipelineSpec:
    return PipelineSpec(
        pipeline_name=run.pipeline_name,
        project=run.project,
        data_url=data_url,
        tasks=tuple(tasks),
        sample_rows=run.sample_rows,
    )


def _first_input(run: Run) -> Value | None:
    """Return the input that a run was accepted with; None where there was none, or where it is fetched anew."""
    return None if run.data is None or run.data_url else parse_value(run.data, path="data")
