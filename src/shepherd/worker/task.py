"""A function as a task: what it is called, what it takes, how it is called."""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shepherd.domain.policy import policy_faults
from shepherd.errors import InvalidInputError
from shepherd.names import TASK_NAME_RULE, is_task_name
from shepherd.wire.manifest import TaskOffer
from shepherd.worker.context import ContextType, context_type
from shepherd.worker.data import DataType, data_type, local_path_type

_RULE: Final = "must take (context), (context, data) or (context, data_path), and be a plain `def`"
_POSITIONAL: Final = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One function that a worker serves."""

    name: str
    function: Callable[..., Any]
    context: ContextType
    #: None when the function takes no data.
    data: DataType | None
    #: The seed's form: gets a path, and a returned string that names a file is that file.
    is_by_path: bool
    description: str
    #: What its author wants where a caller says nothing; only what is stated.
    policy: Mapping[str, Any]

    def offer(self) -> TaskOffer:
        return TaskOffer(
            name=self.name,
            description=self.description,
            context_schema=self.context.schema,
            data=self.data.label if self.data else "",
            policy=dict(self.policy),
        )


def task_of(function: Callable[..., Any], *, name: str = "", policy: Mapping[str, Any] | None = None) -> Task:
    """Return the task that a function is.

    Raises:
        InvalidInputError: Its name, its parameters or its policy can't be a task's; the text says what can.
    """
    given = name or getattr(function, "__name__", "")
    where = f"task {given!r}"
    if not is_task_name(given):
        raise InvalidInputError.at(where, f"the name {TASK_NAME_RULE}")
    if faults := list(policy_faults(policy or {}, path=f"{where}: ")):
        raise InvalidInputError(faults)
    parameters = _parameters(function, where=where)
    hints = _hints(function, where=where)
    wanted = [hints.get(parameter.name, Any) for parameter in parameters]
    is_by_path = len(parameters) > 1 and parameters[1].name == "data_path" and wanted[1] in (Any, str)
    return Task(
        name=given,
        function=function,
        context=_context(wanted[0], where=where),
        data=_data(wanted[1:], is_by_path=is_by_path, where=where),
        is_by_path=is_by_path,
        description=inspect.getdoc(function) or "",
        policy=policy or {},
    )


def _parameters(function: Callable[..., Any], *, where: str) -> list[inspect.Parameter]:
    if not callable(function) or _runs_later(function):
        raise InvalidInputError.at(where, _RULE)
    every = inspect.signature(function).parameters.values()
    positional = [parameter for parameter in every if parameter.kind in _POSITIONAL]
    needed = [parameter for parameter in positional if parameter.default is parameter.empty]
    others = [parameter for parameter in every if parameter.kind not in _POSITIONAL]
    if not positional or len(needed) > 2 or any(_is_needed(parameter) for parameter in others):
        raise InvalidInputError.at(where, f"{_RULE}; this one takes {inspect.signature(function)}")
    return positional[:2]


def _runs_later(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is parameter.empty


def _hints(function: Callable[..., Any], *, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        reason = (
            f"an annotation can't be read: {error}; import its type at the top of the file, not under TYPE_CHECKING"
        )
        raise InvalidInputError.at(where, reason) from None
    except TypeError:
        return {}


def _context(annotation: Any, *, where: str) -> ContextType:
    try:
        return context_type(annotation)
    except TypeError as error:
        reason = f"the context must be a dict, dataclass, TypedDict or pydantic model: {error}"
        raise InvalidInputError.at(where, reason) from None


def _data(wanted: list[Any], *, is_by_path: bool, where: str) -> DataType | None:
    if not wanted:
        return None
    if is_by_path:
        return local_path_type()
    try:
        return data_type(wanted[0])
    except TypeError as error:
        raise InvalidInputError.at(where, f"no task's data can become {wanted[0]!r}: {error}") from None
