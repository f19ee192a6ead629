"""What may stand in a context in place of a value: an earlier task's result, a secret, or a value as it is."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from shepherd.errors import Fault, InvalidInputError
from shepherd.names import TASK_NAME_RULE, is_task_name

RESULT: Final = "$result"
SECRET: Final = "$secret"  # noqa: S105  # the word that marks one
LITERAL: Final = "$literal"
_POINTER: Final = "pointer"
_MARKS: Final = (RESULT, SECRET, LITERAL)

_SECRET_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
#: RFC 6901: every part begins with `/`, and `~` is followed by 0 or 1.
_JSON_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
#: Characters of a caller's own text that come back to it in a path or a reason.
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class ResultReference:
    """`{"$result": "sentinel", "pointer": "/dates/0"}`: what an earlier task of the pipeline returned, or a part."""

    #: Its name, or its `order_no`.
    task: str | int
    #: RFC 6901; empty for all of it.
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """`{"$secret": "NAME"}`: a text that only the worker knows."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """`{"$literal": …}`: this value, whatever it looks like."""

    value: Any


Placeholder = ResultReference | SecretReference | Literal


def find_placeholders(document: Any, *, path: str) -> Iterator[tuple[str, Placeholder | Fault]]:
    """Yield each place at which something else is to be put, or a fault where that can't be understood.

    Nothing within a `$literal` is looked at.
    """
    if isinstance(document, dict):
        if _is_marked(document):
            yield path, _parsed(document, path=path)
            return
        for key, part in document.items():
            yield from find_placeholders(part, path=f"{path}.{key[:_SHOWN]}" if path else key[:_SHOWN])
    elif isinstance(document, list):
        for index, part in enumerate(document):
            yield from find_placeholders(part, path=f"{path}[{index}]")


def replaced(document: Any, replace: Callable[[Placeholder, str], Any], *, path: str = "") -> Any:
    """Return the document with `replace(placeholder, path)` at each place; what needs no change isn't copied.

    Where `replace` returns the placeholder that it was given, the place stays as it is.

    Raises:
        InvalidInputError: A placeholder can't be understood; or what `replace` raises.
    """
    if isinstance(document, dict):
        if _is_marked(document):
            found = _parsed(document, path=path)
            if isinstance(found, Fault):
                raise InvalidInputError([found])
            put = replace(found, path)
            return document if put is found else put
        changed = {
            key: replaced(part, replace, path=f"{path}.{key}" if path else key) for key, part in document.items()
        }
        return changed if any(changed[key] is not part for key, part in document.items()) else document
    if isinstance(document, list):
        parts = [replaced(part, replace, path=f"{path}[{index}]") for index, part in enumerate(document)]
        return parts if any(after is not before for after, before in zip(parts, document, strict=True)) else document
    return document


def shielded(value: Any) -> Any:
    """Return a value as it must stand in a context so that it is taken as it is."""
    return {LITERAL: value} if any(True for _ in find_placeholders(value, path="")) else value


def pointed_at(value: Any, pointer: str) -> Any:
    """Return the part of a JSON value at which a pointer points.

    Raises:
        LookupError: There is none; the text is the end of "The pointer …".
    """
    for number, part in enumerate(pointer.split("/")[1:], start=1):
        key = part.replace("~1", "/").replace("~0", "~")
        where = "/".join(pointer.split("/")[:number]) or "the result itself"
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, list):
            raise LookupError(f"leads nowhere: {where} is a list of {len(value)}, and {key[:_SHOWN]!r} no place in it")
        elif isinstance(value, dict):
            raise LookupError(f"leads nowhere: {where} has no {key[:_SHOWN]!r}")
        else:
            raise LookupError(f"leads nowhere: {where} is neither an object nor a list")
    return value


def _is_marked(document: dict[str, Any]) -> bool:
    return any(mark in document for mark in _MARKS)


def _parsed(document: dict[str, Any], *, path: str) -> Placeholder | Fault:
    mark = next(mark for mark in _MARKS if mark in document)
    known = {RESULT, _POINTER} if mark == RESULT else {mark}
    if extra := [key for key in document if key not in known]:
        hint = f'; to have it taken as it is, write {{"{LITERAL}": …}} around it'
        return Fault(path, f"holds {extra[0][:_SHOWN]!r} beside {mark!r}{hint}")
    if mark == LITERAL:
        return Literal(document[LITERAL])
    return _secret(document[SECRET], path) if mark == SECRET else _result(document, path)


def _secret(name: Any, path: str) -> SecretReference | Fault:
    if isinstance(name, str) and _SECRET_NAME.fullmatch(name):
        return SecretReference(name)
    rule = "a letter or underscore, followed by at most 99 letters, digits or underscores"
    return Fault(f"{path}.{SECRET}", f"must be the name of a secret: {rule}")


def _result(document: dict[str, Any], path: str) -> ResultReference | Fault:
    task, pointer = document[RESULT], document.get(_POINTER, "")
    if isinstance(task, bool) or not isinstance(task, str | int):
        return Fault(f"{path}.{RESULT}", "must be the name or the order_no of an earlier task")
    if isinstance(task, str) and not is_task_name(task):
        return Fault(f"{path}.{RESULT}", f"must be a task's name, which {TASK_NAME_RULE}; or an order_no, as a number")
    if not isinstance(pointer, str) or not _JSON_POINTER.fullmatch(pointer):
        return Fault(f"{path}.{_POINTER}", "must be a JSON pointer (RFC 6901), as in '/dates/0'")
    return ResultReference(task, pointer)
