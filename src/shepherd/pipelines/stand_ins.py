"""Checking contexts of which a part isn't known yet: the result of an earlier task, or a secret."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError

from shepherd.domain.placeholders import Literal, Placeholder, SecretReference, replaced

#: With a part unknown these may hold or not: they are decided once it is there.
_UNDECIDED: Final = frozenset({"not", "if", "contains", "enum", "const", "uniqueItems", "dependentSchemas"})
#: What they say of a text that isn't known is decided by nobody but the worker.
_OF_VALUES: Final = frozenset({"enum", "const", "pattern", "format", "minLength", "maxLength", "not", "if"})

_Keyword = Callable[[Any, Any, Any, Any], Any]
_ANY_OF: Final[_Keyword] = Draft202012Validator.VALIDATORS["anyOf"]


@dataclass(frozen=True, slots=True)
class _StandIn:
    """Stands where a value will."""

    is_secret: bool


def for_check(context: Any) -> tuple[Any, bool]:
    """Return a context with stand-ins in it, and whether there are none.

    Raises:
        InvalidInputError: A placeholder can't be understood.
    """
    stand_ins: list[_StandIn] = []

    def replace(placeholder: Placeholder, _path: str) -> Any:
        if isinstance(placeholder, Literal):
            return placeholder.value
        stand_ins.append(_StandIn(isinstance(placeholder, SecretReference)))
        return stand_ins[-1]

    return replaced(context, replace), not stand_ins


def lenient(name: str, keyword: _Keyword) -> _Keyword:
    """Return a keyword of JSON Schema that refuses no stand-in but a secret where no text may be."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, _StandIn):
            yield from _of_stand_in(name, keyword, validator, value, instance, schema)
        elif name == "oneOf":
            # Several may fit as long as a part is unknown.
            yield from (_ANY_OF if _is_undecided(instance) else keyword)(validator, value, instance, schema) or ()
        elif name not in _UNDECIDED or not _is_undecided(instance):
            yield from keyword(validator, value, instance, schema) or ()

    return check


def shown(value: Any) -> str:
    if isinstance(value, _StandIn):
        return "a secret, which is a text"
    return json.dumps(value, ensure_ascii=False, default=_described)


def _of_stand_in(
    name: str, keyword: _Keyword, validator: Any, value: Any, instance: _StandIn, schema: Any
) -> Iterator[ValidationError]:
    if not instance.is_secret or name in _OF_VALUES:
        return
    if name == "type":
        wanted = [value] if isinstance(value, str) else value
        if "string" not in wanted:
            yield ValidationError("is a secret, which is a text")
    else:
        yield from (_ANY_OF if name == "oneOf" else keyword)(validator, value, instance, schema) or ()


def _is_undecided(instance: Any) -> bool:
    if isinstance(instance, dict):
        return any(map(_is_undecided, instance.values()))
    return any(map(_is_undecided, instance)) if isinstance(instance, list) else isinstance(instance, _StandIn)


def _described(_value: object) -> str:
    return "…"
