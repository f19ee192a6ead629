"""Putting the results of earlier tasks into contexts that refer to them, just before their tasks are published."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from shepherd.domain.pipeline import MAX_TASKS, TaskSpec
from shepherd.domain.placeholders import (
    LITERAL,
    RESULT,
    Placeholder,
    ResultReference,
    find_placeholders,
    pointed_at,
    replaced,
    shielded,
)
from shepherd.domain.references import Step, earlier
from shepherd.errors import Fault, InvalidInputError
from shepherd.pipelines import sql
from shepherd.pipelines.announced import announced
from shepherd.pipelines.intents import NextTask
from shepherd.wire import strict_json
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import ClaimCheck, Value, parse_value

#: Bytes of a context with everything in it: a small one may name a large result many times.
LARGEST_CONTEXT: Final = 4 * 1024 * 1024
#: How a stored context that refers to a result looks, whatever else is in it.
_MARK: Final = f'"{RESULT}":'
#: Tasks of one query, each of which may refer to 200 others.
_AT_ONCE: Final = 50

Row = Mapping[str, Any]


def filled(tasks: Sequence[NextTask], *, now: datetime) -> tuple[list[NextTask], list[tuple[Row, TaskError]]]:
    """Return the tasks with their contexts filled in, in their order, and those for which that can't be, with why.

    What is filled in is checked against what the tasks' workers announced. Asks the database only when a task refers to
    something; to be called in the transaction in which the attempts are opened.
    """
    referring = [task for task in tasks if _MARK in task.context]
    if not referring:
        return list(tasks), []
    changed: dict[int, NextTask] = {}
    unfit: dict[int, TaskError] = {}
    for start in range(0, len(referring), _AT_ONCE):
        for task, context in _put_in(referring[start : start + _AT_ONCE]):
            if isinstance(context, TaskError):
                unfit[task.row["task_number"]] = context
            else:
                changed[task.row["task_number"]] = replace(task, context=context)
    unfit |= _unfit(changed, now=now)
    ready = [task for task in tasks if task.row["task_number"] not in unfit]
    return (
        [changed.get(task.row["task_number"], task) for task in ready],
        [(task.row, unfit[task.row["task_number"]]) for task in tasks if task.row["task_number"] in unfit],
    )


def carried_over(context: Any, results: Mapping[Step, str | None], *, position: int, path: str) -> Any:
    """Return a context for a run without the tasks that have `results`: these are filled in, other references stay.

    `results` has all tasks of the earlier run, and `position` is that of the context's own task in it.

    Raises:
        InvalidInputError: A result can't stand in a context.
    """
    return _Filling(results, position=position, is_partial=True).document_of(context, path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FilledTask(TaskSpec):
    """A task whose context is about to be sent."""

    @property
    def path(self) -> str:
        return ""

    @property
    def context_path(self) -> str:
        return "context"


def _put_in(tasks: Sequence[NextTask]) -> Iterator[tuple[NextTask, str | TaskError]]:
    contexts = [strict_json.loads(task.context) for task in tasks]
    results = _results(tasks, contexts)
    for task, context in zip(tasks, contexts, strict=True):
        own = results.get(task.row["run_number"], {})
        try:
            yield task, _Filling(own, position=task.row["position"]).text_of(context)
        except InvalidInputError as error:
            yield task, TaskError(code="invalid_reference", message=str(error))


def _results(tasks: Sequence[NextTask], contexts: Sequence[Any]) -> dict[int, dict[Step, str | None]]:
    """Return the recorded results of the tasks that are referred to, by run."""
    names, order_nos = _named(contexts)
    runs = list({task.row["run_number"] for task in tasks})
    found = sql.rows(
        f"""SELECT run_id, position, order_no, name, result FROM pipelines_task WHERE run_id IN {sql.places(runs)}
            AND (name IN {sql.places(names)} OR order_no IN {sql.places(order_nos)})""",
        [*runs, *names, *order_nos],
    )
    results: dict[int, dict[Step, str | None]] = {}
    for row in found:
        results.setdefault(row["run_id"], {})[Step(row["position"], row["order_no"], row["name"])] = row["result"]
    return results


def _named(contexts: Iterable[Any]) -> tuple[list[str], list[int]]:
    """Return the names and the `order_no`s of the tasks that contexts refer to, each at least one."""
    names, order_nos = {""}, {0}
    for context in contexts:
        own = {found.task for _, found in find_placeholders(context, path="") if isinstance(found, ResultReference)}
        # No pipeline has more: one of these is nowhere, and is told as such.
        for task in sorted(own, key=str)[:MAX_TASKS]:
            if isinstance(task, str):
                names.add(task)
            elif abs(task) < 2**63:
                order_nos.add(task)
    return list(names), list(order_nos)


class _Filling:
    """Fills one context in."""

    def __init__(self, results: Mapping[Step, str | None], *, position: int, is_partial: bool = False) -> None:
        self._results = results
        self._position = position
        #: Whether a reference to what has no result yet stays.
        self._is_partial = is_partial
        self._size = 0
        #: What each reference stands for, with its size.
        self._known: dict[ResultReference, tuple[Any, int]] = {}

    def text_of(self, context: Any) -> str:
        """Return the JSON text of the context with every reference replaced.

        Raises:
            InvalidInputError: One can't be, or together they are too large or no context.
        """
        document = self.document_of(context, path="context")
        if not isinstance(document, dict) or not isinstance(document.get(LITERAL, {}), dict):
            raise InvalidInputError.at("context", "must be an object, and the result that it is to be is none")
        text = strict_json.dumps(document)
        try:
            strict_json.loads(f'{{"context":{text}}}')
        except strict_json.StrictJsonError as error:
            raise InvalidInputError(error.faults) from None
        return text

    def document_of(self, context: Any, *, path: str) -> Any:
        return replaced(context, self._replace, path=path)

    def _replace(self, placeholder: Placeholder, path: str) -> Any:
        if not isinstance(placeholder, ResultReference) or (self._is_partial and self._is_open(placeholder)):
            return placeholder
        if placeholder not in self._known:
            value = shielded(self._value(placeholder, path))
            self._known[placeholder] = value, len(strict_json.dumps(value))
        value, size = self._known[placeholder]
        self._size += size
        if self._size > LARGEST_CONTEXT:
            raise InvalidInputError.at("context", f"is more than {LARGEST_CONTEXT} bytes with all that it refers to")
        return value

    def _is_open(self, reference: ResultReference) -> bool:
        try:
            return self._results[earlier(reference, steps=self._results, position=self._position)] is None
        except LookupError:
            return True

    def _value(self, reference: ResultReference, path: str) -> Any:
        try:
            step = earlier(reference, steps=self._results, position=self._position)
        except LookupError as error:
            raise InvalidInputError.at(f"{path}.{RESULT}", str(error)) from None
        stored = self._results[step]
        called = f"the result of {step.name!r} (order_no {step.order_no})"
        if stored is None:
            raise InvalidInputError.at(path, f"{called} isn't there: it has not succeeded")
        result: Value = parse_value(strict_json.loads(stored), path="result")
        if isinstance(result, ClaimCheck):
            what = f"{result.size} bytes of {result.media_type} in the store"
            raise InvalidInputError.at(path, f"{called} can't stand in a context: it isn't small JSON, but {what}")
        try:
            return pointed_at(result.value, reference.pointer)
        except LookupError as error:
            raise InvalidInputError.at(path, f"the pointer {reference.pointer!r} into {called} {error}") from None


def _unfit(tasks: Mapping[int, NextTask], *, now: datetime) -> dict[int, TaskError]:
    """Return the tasks whose contexts break what their workers announced, by number."""
    if not tasks:
        return {}
    # Not at the top: with jsonschema it takes a tenth of the time in which a Task Publisher starts.
    from shepherd.pipelines.contexts import checked_contexts

    specs = [
        _FilledTask(
            order_no=task.row["order_no"], name=task.row["name"], context=strict_json.loads(task.context), index=number
        )
        for number, task in tasks.items()
    ]
    offers = announced({spec.name for spec in specs}, now=now)
    checked = checked_contexts(specs, {name: offer.schemas for name, offer in offers.items()})
    return {spec.index: _misfit(faults) for spec, (faults, _) in zip(specs, checked, strict=True) if faults}


def _misfit(faults: Sequence[Fault]) -> TaskError:
    told = "; ".join(map(str, faults))
    message = f"with the results that it refers to filled in, the context doesn't fit the task: {told}"
    return TaskError(code="invalid_context", message=message)
