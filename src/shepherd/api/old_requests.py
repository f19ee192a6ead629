"""What callers of the old endpoints send, read into what they mean here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shepherd.domain.pipeline import PipelineSpec, TaskSpec, parse_pipeline
from shepherd.errors import Fault, InvalidInputError

#: What is kept beside a run, under the name on the right; each caller of old has spellings of its own.
_LABELS: Final = {
    "dataset_id": "dataset_id",
    "resource_identifier": "resource_identifier",
    "resource_id": "resource_identifier",
    "res_id": "resource_identifier",
    "resultant_res_id": "resultant_res_id",
    "db_action": "db_action",
}
_LABEL_LIMIT: Final = 200
_NUMBER_NAMES: Final = ("p_id", "pipeline_id")
#: Says what the address says already.
_PASSED_OVER: Final = "pipe_action"

_LARGEST_NUMBER: Final = 2**63 - 1
_KEY_SHOWN: Final = 100
_PLACE: Final = re.compile(r"transformers_list\[([0-9]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """A new pipeline."""

    spec: PipelineSpec
    labels: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Tasks to append to a pipeline; without any, a clone of it."""

    number: int
    tasks: tuple[TaskSpec, ...]
    labels: dict[str, Any]


def parse_create(document: Any) -> Create:
    """Return the pipeline that is asked for. `null` in `transformers_list` is passed over.

    Raises:
        InvalidInputError: Names every field at fault, by its place as sent.
    """
    if not isinstance(document, Mapping):
        raise _no_object()
    labels, faults = _labels(document)
    passed_over = {*_LABELS, _PASSED_OVER}
    spec, more = _parse({key: value for key, value in document.items() if key not in passed_over})
    if spec is None or faults:
        raise InvalidInputError([*more, *faults])
    return Create(spec=spec, labels=labels)


def parse_update(document: Any) -> Update:
    """Return which pipeline gets which further tasks.

    Raises:
        InvalidInputError: As `parse_create`.
    """
    number, labels, faults = _reference(document, known=("transformers_list", _PASSED_OVER))
    # Of a whole pipeline only the tasks are asked for here; the rest is that of the earlier one.
    tasks = {key: document[key] for key in ("transformers_list",) if key in document}
    spec, more = _parse({"pipeline_name": "appended", "project": "appended", **tasks})
    if spec is None or faults:
        raise InvalidInputError([*faults, *more])
    return Update(number=number, tasks=spec.tasks, labels=labels)


def parse_clone(document: Any) -> Update:
    """Return which pipeline is to run again.

    Raises:
        InvalidInputError: As `parse_create`.
    """
    number, labels, faults = _reference(document, known=())
    if faults:
        raise InvalidInputError(faults)
    return Update(number=number, tasks=(), labels=labels)


def _no_object() -> InvalidInputError:
    return InvalidInputError.at("", "must be a JSON object")


def _labels(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    labels: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, label in _LABELS.items():
        value = document.get(key)
        if value is None:
            continue
        if label in labels and labels[label] != value:
            faults.append(Fault(key, f"is another spelling of {label}, which is given with another value"))
        elif not _is_label(value):
            faults.append(Fault(key, f"must be an integer or a text of at most {_LABEL_LIMIT} characters"))
        else:
            labels[label] = value
    return labels, faults


def _is_label(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return False
    return len(value) <= _LABEL_LIMIT if isinstance(value, str) else abs(value) <= _LARGEST_NUMBER


def _parse(document: Mapping[str, Any]) -> tuple[PipelineSpec | None, list[Fault]]:
    """Parse a pipeline without the `null`s in its list; faults and tasks keep their places in the list as sent."""
    fields = dict(document)
    places: list[int] = []
    tasks = fields.get("transformers_list")
    if isinstance(tasks, list):
        places = [place for place, task in enumerate(tasks) if task is not None]
        fields["transformers_list"] = [tasks[place] for place in places]
    try:
        spec = parse_pipeline(fields)
    except InvalidInputError as error:
        return None, [Fault(_as_sent(fault.path, places), fault.reason) for fault in error.faults]
    return replace(spec, tasks=tuple(replace(task, index=places[task.index]) for task in spec.tasks)), []


def _as_sent(path: str, places: Sequence[int]) -> str:
    found = _PLACE.match(path)
    return path if found is None else f"transformers_list[{places[int(found[1])]}]{path[found.end() :]}"


def _reference(document: Any, *, known: Sequence[str]) -> tuple[int, dict[str, Any], list[Fault]]:
    if not isinstance(document, Mapping):
        raise _no_object()
    labels, faults = _labels(document)
    fields = (*_NUMBER_NAMES, *known, *_LABELS)
    unknown = [
        Fault(str(key)[:_KEY_SHOWN], f"is not known here; these are: {', '.join(fields)}")
        for key in document
        if key not in fields
    ]
    number, wrong = _number(document)
    return number, labels, [*wrong, *unknown, *faults]


def _number(document: Mapping[str, Any]) -> tuple[int, list[Fault]]:
    given = [name for name in _NUMBER_NAMES if document.get(name) is not None]
    if not given:
        return 0, [Fault(_NUMBER_NAMES[0], "is missing")]
    numbers = {_as_number(document[name]) for name in given}
    if len(numbers) > 1:
        return 0, [Fault(given[1], f"names another pipeline than {given[0]}")]
    number = numbers.pop()
    return (number, []) if number is not None else (0, [Fault(given[0], "must be the number of a pipeline")])


def _as_number(value: Any) -> int | None:
    # `pipe_list` names pipelines by keys of an object, which are texts.
    if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _LARGEST_NUMBER else None
