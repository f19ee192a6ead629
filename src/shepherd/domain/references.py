"""Whether what contexts refer to is there: an earlier task of the same pipeline, and one alone."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from shepherd.domain.pipeline import MAX_FAULTS, TaskSpec
from shepherd.domain.placeholders import RESULT, ResultReference, SecretReference, find_placeholders
from shepherd.errors import Fault


class Step(NamedTuple):
    """A task's place in its pipeline, and what it may be called by."""

    position: int
    order_no: int
    name: str


def steps_of(tasks: Iterable[TaskSpec]) -> list[Step]:
    """Return the steps of a pipeline's tasks, which are given in their order."""
    return [Step(position, task.order_no, task.name) for position, task in enumerate(tasks)]


def reference_faults(contexts: Iterable[tuple[int, TaskSpec]], *, steps: Sequence[Step]) -> list[Fault]:
    """Return what is wrong with the placeholders in contexts, each given with its task's position."""
    faults: list[Fault] = []
    for position, task in contexts:
        for fault in _faults(position, task, steps):
            faults.append(fault)
            if len(faults) >= MAX_FAULTS:
                return faults
    return faults


def earlier(reference: ResultReference, *, steps: Iterable[Step], position: int) -> Step:
    """Return the task that a reference in the context of the task at `position` means.

    Raises:
        LookupError: It means none, or several; the text is the end of the sentence "This field …".
    """
    found = [
        step for step in steps if reference.task == (step.name if isinstance(reference.task, str) else step.order_no)
    ]
    before = [step for step in found if step.position < position]
    if len(before) == 1:
        return before[0]
    if before:
        raise LookupError(f"means {len(before)} tasks before this one: name it by an order_no that it has alone")
    if any(step.position > position for step in found):
        raise LookupError("means a task that comes later: only the result of an earlier one is known")
    if found:
        raise LookupError("means this task itself, which has no result yet")
    raise LookupError("is neither the name nor the order_no of a task of this pipeline")


def _faults(position: int, task: TaskSpec, steps: Sequence[Step]) -> Iterator[Fault]:
    for path, found in find_placeholders(task.context, path=task.context_path):
        if isinstance(found, Fault):
            yield found
        elif isinstance(found, SecretReference) and path == task.context_path:
            yield Fault(path, "must be an object, and a secret is a text")
        elif isinstance(found, ResultReference):
            try:
                earlier(found, steps=steps, position=position)
            except LookupError as error:
                yield Fault(f"{path}.{RESULT}", str(error))
