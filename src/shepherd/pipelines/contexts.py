"""Whether a task's context is what its workers said that they take.

Schemas come from whoever can reach the broker, so one that is broken, too large, too slow or refers elsewhere
never keeps a pipeline out: its contexts then go unchecked, with a warning, and the worker has the last word.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema
from jsonschema import Draft202012Validator, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry

from shepherd.domain.pipeline import TaskSpec
from shepherd.errors import Fault, InvalidInputError
from shepherd.pipelines.stand_ins import for_check, lenient, shown
from shepherd.wire.strict_json import join

#: Characters; pydantic's schema of a large form has a tenth of it.
_SCHEMA_LIMIT: Final = 64 * 1024
#: Faults told of one context.
_FAULTS_TOLD: Final = 20
_REASON_LIMIT: Final = 300
#: What the contexts of one pipeline may cost to check, in visited parts; 1 s on a slow machine.
_STEPS: Final = 200_000
#: Their cost can't be bounded: they match keys by Python's backtracking regular expressions or walk the schema again.
_UNBOUNDED = frozenset(
    {"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}
)


class _UncheckableError(Exception):
    """A schema can't be used, or costs too much; the text is the end of "Its context was not checked: the schema …"."""


_steps_left: ContextVar[list[int]] = ContextVar("steps_left")


def check_contexts(
    tasks: Sequence[TaskSpec], announced: Mapping[str, Sequence[str]]
) -> tuple[list[Fault], list[Fault]]:
    """Return the faults of the contexts, and the warnings.

    `announced` has, for each name that was ever announced, the texts of its schemas, the newest first: a context that
    fits one of them is accepted; the faults told are those against the newest.
    """
    checked = checked_contexts(tasks, announced)
    return [fault for faults, _ in checked for fault in faults], [fault for _, warned in checked for fault in warned]


def checked_contexts(
    tasks: Sequence[TaskSpec], announced: Mapping[str, Sequence[str]]
) -> list[tuple[list[Fault], list[Fault]]]:
    """Return the faults and the warnings of each task's context, for all that they may cost together."""
    token = _steps_left.set([_STEPS])
    try:
        return [_checked(task, announced.get(task.name)) for task in tasks]
    finally:
        _steps_left.reset(token)


def _checked(task: TaskSpec, schemas: Sequence[str] | None) -> tuple[list[Fault], list[Fault]]:
    if schemas is None:
        reason = f"no worker has ever announced {task.name!r}: the task waits until one does"
        return [], [Fault(f"{task.path}.name", reason)]
    try:
        return _faults(task, schemas), []
    except _UncheckableError as error:
        return [], [Fault(task.context_path, f"was not checked: the schema of {task.name!r} {error}")]


def _faults(task: TaskSpec, schemas: Sequence[str]) -> list[Fault]:
    # Any that can't be checked may be the one that takes it, so it is asked last and then raises.
    usable, unusable = [], None
    try:
        context, is_exact = for_check(task.context)
    except InvalidInputError:
        # What can't be understood is told by `domain.references`.
        return []
    for text in schemas:
        try:
            usable.append(_errors(text, context, is_exact=is_exact))
        except _UncheckableError as error:
            unusable = error
            continue
        if not usable[-1]:
            return []
    if unusable is not None:
        raise unusable
    path = task.context_path
    return list(dict.fromkeys(fault for error in usable[0] for fault in _told(error, path=path)))[:_FAULTS_TOLD]


def _errors(schema_text: str, context: Any, *, is_exact: bool) -> list[ValidationError]:
    try:
        return list(islice(_validator(schema_text, is_exact=is_exact).iter_errors(context), _FAULTS_TOLD))
    except _UncheckableError:
        raise
    # A stranger's schema, run by an interpreter of schemas: recursion without end, numbers out of range, references
    # that lead nowhere, each with an exception of its own. None may keep a caller out.
    except Exception as error:  # noqa: BLE001
        raise _UncheckableError(f"can't be used ({type(error).__name__})") from None


@lru_cache(maxsize=512)
def _validator(schema_text: str, *, is_exact: bool) -> Any:
    if len(schema_text) > _SCHEMA_LIMIT:
        raise _UncheckableError(f"has more than {_SCHEMA_LIMIT} characters")
    schema = json.loads(schema_text)
    if refused := _UNBOUNDED.intersection(_keys(schema)):
        raise _UncheckableError(f"uses {', '.join(sorted(refused))}, which is not supported")
    try:
        Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _UncheckableError(f"is no JSON Schema: {error.message[:_REASON_LIMIT]}") from None
    # A registry of its own: the library's default one fetches what a `$ref` names over the network.
    return (_Validator if is_exact else _LenientValidator)(schema, registry=Registry())


def _keys(schema: Any) -> Iterator[str]:
    inner: Sequence[Any] = ()
    if isinstance(schema, dict):
        yield from schema
        inner = list(schema.values())
    elif isinstance(schema, list):
        inner = schema
    for part in inner:
        yield from _keys(part)


def _counted(keyword: Any) -> Any:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(1 + (len(value) if isinstance(value, list | dict) else 0))
        yield from keyword(validator, value, instance, schema) or ()

    return check


def _spend(steps: int) -> None:
    left = _steps_left.get()
    left[0] -= steps
    if left[0] < 0:
        raise _UncheckableError("takes too long to check")


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "string"):
        return
    _spend(len(instance) // 100)
    if not _matches(pattern, instance):
        yield ValidationError(f"{_shown(instance)} does not match {pattern!r}")


def _matches(pattern: str, text: str) -> bool:
    return bool(_regex(pattern).isinstance_python(text))


@lru_cache(maxsize=512)
def _regex(pattern: str) -> SchemaValidator:
    # Rust's engine, since it takes linear time for any pattern; Python's takes for ever for `(a+)+$`, holding the GIL.
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        raise _UncheckableError(f"has a pattern that is not supported: {pattern[:100]!r}") from None


def _unique_items(validator: Any, is_wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not is_wanted or not validator.is_type(instance, "array"):
        return
    _spend(len(instance))
    # By their text, since the library compares each with each.
    if len({json.dumps(item, sort_keys=True) for item in instance}) < len(instance):
        yield ValidationError("has an item more than once")


_KEYWORDS: Final = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique_items}
_Validator: Any = jsonschema.validators.extend(
    Draft202012Validator, {name: _counted(keyword) for name, keyword in _KEYWORDS.items()}
)
#: For contexts of which a part isn't known yet: what may fit is taken.
_LenientValidator: Any = jsonschema.validators.extend(
    Draft202012Validator, {name: _counted(lenient(name, keyword)) for name, keyword in _KEYWORDS.items()}
)


def _told(error: ValidationError, *, path: str) -> Iterator[Fault]:
    for key in error.absolute_path:
        path = join(path, key)
    if error.validator == "required":
        yield from (
            Fault(join(path, name), "is missing") for name in error.validator_value if name not in error.instance
        )
    elif error.validator == "additionalProperties" and error.validator_value is False:
        known = error.schema.get("properties", {})
        reason = f"is not known here; these are: {', '.join(known)}"[:_REASON_LIMIT]
        yield from (Fault(join(path, name[:100]), reason) for name in error.instance if name not in known)
    else:
        yield Fault(path, _reason(error))


def _reason(error: ValidationError) -> str:
    if error.validator == "type":
        wanted = error.validator_value
        return (
            f"must be of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}, is {_shown(error.instance)}"
        )
    return str(error.message)[:_REASON_LIMIT]


def _shown(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
