"""How a pipeline becomes a run: the only way in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from shepherd.domain.pipeline import PipelineSpec, TaskSpec
from shepherd.domain.policy import merged
from shepherd.domain.references import reference_faults, steps_of
from shepherd.domain.status import RunStatus
from shepherd.errors import ConflictError, Fault, InvalidInputError
from shepherd.pipelines import inserting, sql, wakeup
from shepherd.pipelines.announced import announced
from shepherd.pipelines.changes import Change, write_changes
from shepherd.pipelines.contexts import check_contexts
from shepherd.pipelines.data_urls import data_url_fault
from shepherd.pipelines.models import Run, Task
from shepherd.pipelines.policies import ProjectPolicies, project_policies
from shepherd.pipelines.projects import known_projects
from shepherd.wire.value import Value

_KEY_LIMIT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to a submitted pipeline."""

    run: Run
    #: What doesn't keep the run from being accepted, but may keep it from ending well.
    warnings: tuple[Fault, ...]
    #: False when an earlier call with the same key made the run.
    is_new: bool


def accept(
    spec: PipelineSpec,
    *,
    by: User,
    now: datetime,
    idempotency_key: str | None = None,
    body_sha256: str = "",
    labels: Mapping[str, Any] | None = None,
    data: Value | None = None,
    origin: int | None = None,
) -> Accepted:
    """Store a run and its tasks in one transaction, and wake the Task Publisher once it is committed.

    Safe to call again with the same key and body, from any process: the run of the first call is the answer.
    A broker that is away doesn't matter here. `data` is the input of the first task where it is known already, in
    place of a `data_url`; `labels` are kept beside the run; `origin` is the number of the run that it repeats.

    Raises:
        InvalidInputError: The project is unknown or its `project.toml` broken, or a context breaks what its workers
            announced. Nothing is stored.
        ConflictError: The caller used this key before, with another body.
    """
    _check_key(idempotency_key)
    first = _first_run(by, idempotency_key, body_sha256)
    if first is not None:
        return first
    checked = _check(spec, now=now)
    try:
        with sql.transaction():
            run = Run(
                project=spec.project,
                pipeline_name=spec.pipeline_name,
                data_url=spec.data_url,
                sample_rows=spec.sample_rows,
                data=data.to_wire() if data is not None else None,
                accepted_at=now,
                accepted_by=by,
                idempotency_key=idempotency_key,
                body_sha256=body_sha256,
                labels=dict(labels or {}),
                origin_id=origin,
            )
            inserting.insert(run)
            _insert_tasks(run, spec.tasks, checked.policies)
            # A task's first status is no change: the acceptance says it for all of them.
            write_changes([Change(run.number, None, None, "", RunStatus.ACCEPTED, by.get_username())], at=now)
            transaction.on_commit(wakeup.wake, robust=True)
    except IntegrityError:
        # Two calls with one key at once: the constraint lets one in, the other gets its run.
        first = _first_run(by, idempotency_key, body_sha256)
        if first is None:
            raise
        return first
    return Accepted(run=run, warnings=tuple(checked.warnings), is_new=True)


def _check_key(key: str | None) -> None:
    if key is None:
        return
    if not 0 < len(key) <= _KEY_LIMIT or not (key.isascii() and key.isprintable()):
        raise InvalidInputError.at("Idempotency-Key", f"must be 1 to {_KEY_LIMIT} printable ASCII characters")


def _first_run(by: User, key: str | None, body_sha256: str) -> Accepted | None:
    if key is None:
        return None
    run = Run.objects.filter(accepted_by=by, idempotency_key=key).first()
    if run is None:
        return None
    if run.body_sha256 != body_sha256:
        raise ConflictError(f"the Idempotency-Key was used for run {run.number}, with another body")
    return Accepted(run=run, warnings=(), is_new=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """A pipeline that can be accepted."""

    warnings: Sequence[Fault]
    #: One for each task, in their order: what differs from the defaults.
    policies: Sequence[dict[str, Any]]


def _check(spec: PipelineSpec, *, now: datetime) -> _Checked:
    offers = announced({task.name for task in spec.tasks}, now=now)
    faults = reference_faults(enumerate(spec.tasks), steps=steps_of(spec.tasks))
    unfit, warnings = check_contexts(spec.tasks, {name: offer.schemas for name, offer in offers.items()})
    faults += unfit
    if spec.data_url and (reason := data_url_fault(spec.data_url, settings.SHEPHERD.data_sources)):
        faults.insert(0, Fault("data_url", reason))
    stated = _project(spec.project, faults)
    if faults:
        raise InvalidInputError(faults)
    policies = [
        merged(stated.of(task.name), offers[task.name].policy if task.name in offers else {}, task.policy)
        for task in spec.tasks
    ]
    return _Checked(warnings=warnings, policies=policies)


def _project(key: str, faults: list[Fault]) -> ProjectPolicies:
    """Return what the project states of its tasks, and put what is wrong with it first among the faults."""
    known = known_projects(settings.SHEPHERD.projects_folder)
    if key not in known:
        there = ", ".join(known) or "none"
        faults.insert(0, Fault("project", f"has no folder among the server's projects; these are there: {there}"))
        return ProjectPolicies()
    stated = project_policies(known[key])
    faults[:0] = [Fault("project", f"can't be used: {fault}") for fault in stated.faults]
    return stated


def _insert_tasks(run: Run, tasks: Sequence[TaskSpec], policies: Sequence[dict[str, Any]]) -> None:
    inserting.insert_many(
        [
            Task(
                run=run,
                position=position,
                order_no=task.order_no,
                name=task.name,
                context=task.context,
                policy=policy,
            )
            for position, (task, policy) in enumerate(zip(tasks, policies, strict=True))
        ]
    )
