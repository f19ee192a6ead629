"""The names that the whole system shares."""

import keyword
import re
from collections.abc import Collection

#: A task's name is a function's name too (design: one contract and one queue on the whole server).
TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TASK_NAME_RULE = "must be a letter or underscore, followed by at most 99 letters, digits or underscores"

_PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def is_task_name(name: str) -> bool:
    return TASK_NAME.fullmatch(name) is not None


def function_name_fault(name: str, *, taken: Collection[str]) -> str | None:
    """Return why a Python function of this name can't be generated as a task, None if it can.

    `taken` are the names that the generated file needs for itself.
    """
    if not is_task_name(name):
        return TASK_NAME_RULE
    if keyword.iskeyword(name):
        return "is a word of Python's own: no function can be called so"
    return "is a name that the generated code needs for itself" if name in taken else None


def is_project_name(name: str) -> bool:
    return _PROJECT_NAME.fullmatch(name) is not None


def project_key(name: str) -> str:
    """Return the one spelling under which a project is stored and shown: `ids_drr` and `ids-drr` are `ids-drr`."""
    return name.replace("_", "-")
