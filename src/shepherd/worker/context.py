"""What a task's context may be declared as, its JSON Schema, and how the sent JSON becomes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shepherd.errors import Fault, InvalidInputError

_PLAIN: Final = (dict, Mapping, Any, object)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextType:
    """A declared type with its JSON Schema and its parser."""

    #: JSON Schema 2020-12; `{}` takes anything.
    schema: dict[str, Any]
    #: Raises InvalidInputError with the paths inside the parsed value.
    parse: Callable[[Any], Any]


def context_type(annotation: Any) -> ContextType:
    """Return how an annotated type is described and parsed: dict, dataclass, TypedDict, or pydantic model.

    Raises:
        TypeError: No schema can be made of the annotation.
    """
    origin = getattr(annotation, "__origin__", annotation)
    if annotation in _PLAIN or origin in {dict, Mapping}:
        return ContextType(schema={}, parse=_unchanged)
    # By its methods, not its base class: pydantic isn't imported unless the task's author did.
    if hasattr(annotation, "model_json_schema") and hasattr(annotation, "model_validate"):
        return ContextType(schema=annotation.model_json_schema(), parse=_by_pydantic(annotation))
    return _by_msgspec(annotation)


def _unchanged(value: Any) -> Any:
    return value


def _by_pydantic(model: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        try:
            return model.model_validate(value)
        except ValueError as error:
            raise InvalidInputError(_pydantic_faults(error)) from None

    return parse


def _pydantic_faults(error: Any) -> list[Fault]:
    if not hasattr(error, "errors"):
        return [Fault("", str(error))]
    return [Fault(_path(fault["loc"]), fault["msg"]) for fault in error.errors()]


def _path(location: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _by_msgspec(annotation: Any) -> ContextType:
    schema = _unfolded(msgspec.json.schema(annotation))
    known = frozenset(schema.get("properties", ())) if schema.get("additionalProperties") is False else None

    def parse(value: Any) -> Any:
        # msgspec passes over the keys that a dataclass doesn't have: a misspelled optional field would go unnoticed.
        if known is not None and isinstance(value, dict) and (extra := value.keys() - known):
            raise InvalidInputError([Fault(name, _unknown(known)) for name in sorted(extra)])
        try:
            return msgspec.convert(value, annotation, strict=True)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise InvalidInputError.at(path.rstrip("`").removeprefix("."), reason) from None

    return ContextType(schema=schema, parse=parse)


def _unknown(known: frozenset[str]) -> str:
    return f"is unknown; known are {', '.join(sorted(known)) or 'none'}"


def _unfolded(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with its outermost type in place of a reference to it, and closed to unknown fields."""
    definitions: dict[str, Any] = {name: _closed(part) for name, part in schema.get("$defs", {}).items()}
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name not in definitions:
        return schema
    outermost = definitions[name]
    is_recursive = f'"#/$defs/{name}"' in msgspec.json.encode(definitions).decode()
    others = {other: part for other, part in definitions.items() if other != name or is_recursive}
    return {**outermost, "$defs": others} if others else outermost


def _closed(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "additionalProperties": False} if "properties" in part else part
