"""Contexts that a caller puts in place of those of an earlier run: which tasks they mean, and whether they fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shepherd.domain.pipeline import TaskSpec
from shepherd.domain.references import Step, reference_faults
from shepherd.domain.status import TaskStatus
from shepherd.errors import Fault, InvalidInputError
from shepherd.pipelines.announced import announced
from shepherd.pipelines.contexts import check_contexts
from shepherd.pipelines.models import Task
from shepherd.wire.strict_json import join

#: Characters of a caller's own key that come back to it in a path.
_KEY_SHOWN = 100
_PATH = "contexts"


@dataclass(frozen=True, slots=True, kw_only=True)
class _CorrectedTask(TaskSpec):
    """A task whose context stands under a key of `contexts`."""

    key: str

    @property
    def path(self) -> str:
        return _path(self.key)

    @property
    def context_path(self) -> str:
        return self.path


def corrected_tasks(
    tasks: Sequence[Task], contexts: Mapping[str, Any], *, keeps_succeeded: bool, now: datetime
) -> dict[int, dict[str, Any]]:
    """Return the corrected contexts by their task's position.

    A key of `contexts` is the name of a task, or its `order_no` as text; it must mean one task. With `keeps_succeeded`,
    none that has succeeded.

    Raises:
        InvalidInputError: A key means no task, several, or one that another key means too; or a context isn't what the
            task's workers announced.
    """
    faults: list[Fault] = []
    specs: dict[int, _CorrectedTask] = {}
    for key, context in contexts.items():
        found = [task for task in tasks if key in (task.name, str(task.order_no))]
        reason = _key_fault(context, found, specs, keeps_succeeded=keeps_succeeded)
        if reason:
            faults.append(Fault(_path(key), reason))
        else:
            specs[found[0].position] = _spec(found[0], key, context)
    names = {spec.name for spec in specs.values()}
    schemas = {name: offer.schemas for name, offer in announced(names, now=now).items()} if names else {}
    unfit, _ = check_contexts(list(specs.values()), schemas)
    faults += reference_faults(specs.items(), steps=[Step(task.position, task.order_no, task.name) for task in tasks])
    if faults or unfit:
        raise InvalidInputError([*faults, *unfit])
    return {position: spec.context for position, spec in specs.items()}


def _key_fault(
    context: Any, found: Sequence[Task], specs: Mapping[int, _CorrectedTask], *, keeps_succeeded: bool
) -> str:
    if not found:
        return "is neither the name nor the order_no of a task of this run"
    if len(found) > 1:
        return f"means {len(found)} tasks of this run: name it by an order_no that it has alone"
    [task] = found
    if task.position in specs:
        return f"means the same task as {specs[task.position].key!r}"
    if keeps_succeeded and task.status == TaskStatus.SUCCEEDED:
        return "has succeeded, and is not repeated: its context can't be changed"
    return "" if isinstance(context, dict) else "must be an object"


def _spec(task: Task, key: str, context: dict[str, Any]) -> _CorrectedTask:
    return _CorrectedTask(order_no=task.order_no, name=task.name, context=context, index=task.position, key=key)


def _path(key: str) -> str:
    return join(_PATH, key[:_KEY_SHOWN])
