"""Which policy a task gets: what is built in < its project < its author < whoever submits it."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from shepherd.domain.policy import POLICY_FIELDS, policy_faults
from shepherd.errors import Fault
from shepherd.names import is_task_name
from shepherd.pipelines.projects import Project

FILE: Final = "project.toml"
_TABLES: Final = ("defaults", "tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPolicies:
    """What a project states of its tasks' policies."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    #: By the task's name.
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Everything that is wrong in the file, with its name, or with the folder; nothing else of it counts then.
    faults: tuple[str, ...] = ()

    def of(self, name: str) -> dict[str, Any]:
        return {**self.defaults, **self.tasks.get(name, {})}


def project_policies(project: Project) -> ProjectPolicies:
    """Return what a project's `project.toml` says; read anew by each call, nothing where there is none."""
    if project.fault:
        return ProjectPolicies(faults=(project.fault,))
    try:
        content = (project.folder / FILE).read_bytes()
    except FileNotFoundError:
        return ProjectPolicies()
    except OSError as error:
        return ProjectPolicies(faults=(f"{project.folder.name}/{FILE} can't be read: {error.strerror}",))
    return _parsed(content, f"{project.folder.name}/{FILE}")


@lru_cache(maxsize=64)
def _parsed(content: bytes, file: str) -> ProjectPolicies:
    try:
        document = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        return ProjectPolicies(faults=(f"{file} is no TOML: {error}",))
    faults = tuple(f"{file}: {fault.path} {fault.reason}" for fault in _faults(document))
    if faults:
        return ProjectPolicies(faults=faults)
    return ProjectPolicies(defaults=document.get("defaults", {}), tasks=document.get("tasks", {}))


def _faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    yield from (
        Fault(key, f"is not known here; these are: {', '.join(_TABLES)}") for key in document if key not in _TABLES
    )
    yield from _table_faults(document.get("defaults", {}), path="defaults")
    tasks = document.get("tasks", {})
    if not isinstance(tasks, Mapping):
        yield Fault("tasks", "must be a table")
        return
    for name, table in tasks.items():
        if not is_task_name(name):
            yield Fault(f"tasks.{name}", "is not the name of a task")
        yield from _table_faults(table, path=f"tasks.{name}")


def _table_faults(table: Any, *, path: str) -> Iterator[Fault]:
    if not isinstance(table, Mapping):
        yield Fault(path, "must be a table")
        return
    known = ", ".join(POLICY_FIELDS)
    yield from (
        Fault(f"{path}.{key}", f"is not known here; these are: {known}") for key in table if key not in POLICY_FIELDS
    )
    yield from policy_faults(table, path=f"{path}.")
