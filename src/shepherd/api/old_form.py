"""The fields of a task's form, as the old front end draws them, from the JSON Schema of its context."""

import re
from collections.abc import Iterator
from typing import Any, Final

_DEFINITION: Final = "#/$defs/"
#: References followed one after another; a schema is a stranger's, and may refer to itself.
_DEPTH: Final = 10
#: A text that is one column's name: by its format, or as every task of the old system called it.
_COLUMN: Final = re.compile(r"column[0-9]*")


def form_fields(schema: Any) -> list[dict[str, Any]]:
    """Return name, type and description of each property.

    The types are `boolean`, `option_single` (with its `options`), `field_multi` for a list of texts, `field_single`
    for a text that names a column, and `string` for everything else.
    """
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    whole = _resolved(schema, definitions)
    properties = whole.get("properties")
    if not isinstance(properties, dict):
        return []
    return [_field(name, _resolved(part, definitions), definitions) for name, part in properties.items()]


def _resolved(part: Any, definitions: Any, depth: int = 0) -> dict[str, Any]:
    """Return a part of a schema with what it refers to, under its own keywords."""
    if not isinstance(part, dict):
        return {}
    target = part.get("$ref")
    if depth >= _DEPTH or not isinstance(target, str) or not isinstance(definitions, dict):
        return part
    referred = _resolved(definitions.get(target.removeprefix(_DEFINITION)), definitions, depth + 1)
    return {**referred, **part}


def _field(name: str, part: dict[str, Any], definitions: Any) -> dict[str, Any]:
    shapes = [shape for shape in _shapes(part, definitions, set()) if shape.get("type") != "null"]
    description = part.get("description")
    field: dict[str, Any] = {
        "name": name,
        "type": _type(name, shapes),
        "desc": description if isinstance(description, str) else "",
    }
    if field["type"] == "option_single":
        field["options"] = [option for shape in shapes for option in _options(shape) if option is not None]
    return field


def _shapes(part: dict[str, Any], definitions: Any, seen: set[str], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Give each thing that a value may be, one type at a time."""
    choices = next((part[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(part.get(key), list)), None)
    if choices is not None and depth < _DEPTH:
        for choice in _unseen(choices, seen):
            yield from _shapes(_resolved(choice, definitions), definitions, seen, depth + 1)
    elif isinstance(part.get("type"), list) and not _options(part):
        yield from ({**part, "type": name} for name in part["type"])
    else:
        yield part


def _unseen(choices: list[Any], seen: set[str]) -> Iterator[Any]:
    """Leave out what refers to something that was looked at: else a few references to each other make millions."""
    for choice in choices:
        target = choice.get("$ref") if isinstance(choice, dict) else None
        if isinstance(target, str):
            if target in seen:
                continue
            seen.add(target)
        yield choice


def _type(name: str, shapes: list[dict[str, Any]]) -> str:
    # A flag may also be spelled as a text: its schema then lists the spellings.
    flags = [shape for shape in shapes if shape.get("type") == "boolean"]
    others = [shape for shape in shapes if shape not in flags]
    are_options = all(_options(shape) for shape in others)
    if flags and are_options:
        return "boolean"
    if others and not flags and are_options:
        return "option_single"
    if any(_is_list_of_texts(shape) for shape in shapes):
        return "field_multi"
    texts = [shape for shape in shapes if shape.get("type") == "string"]
    is_column = _COLUMN.fullmatch(name) or any(shape.get("format") == "column" for shape in texts)
    return "field_single" if texts and is_column else "string"


def _options(shape: dict[str, Any]) -> list[Any]:
    options = shape.get("enum", [shape["const"]] if "const" in shape else [])
    return options if isinstance(options, list) else []


def _is_list_of_texts(shape: dict[str, Any]) -> bool:
    items = shape.get("items", {})
    return shape.get("type") == "array" and isinstance(items, dict) and items.get("type", "string") == "string"
