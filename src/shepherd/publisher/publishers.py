"""The publishers that projects bring: the Prefect tasks defined in `projects/<name>/flow.py`, found by name."""

import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from shepherd.errors import ShepherdError
from shepherd.names import is_task_name
from shepherd.pipelines.projects import known_projects


class BrokenFlowError(ShepherdError):
    """A project's flow.py can't be imported; the text is its traceback."""

    code = "flow_broken"

    @property
    def reason(self) -> str:
        """The exception alone, which a traceback ends with."""
        return str(self).strip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class _Loaded:
    modified_ns: int
    publishers: Mapping[str, Any]
    broken: str = ""


class Publishers:
    """All projects' publishers. Files are imported at first need, and again when they have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[Path, _Loaded] = {}
        self._lock = threading.Lock()

    def names(self, project: str) -> frozenset[str] | None:
        """Return which tasks of a project have a publisher of their own; None if its flow.py can't say so."""
        try:
            return frozenset(self.of(project))
        except BrokenFlowError:
            return None

    def of(self, project: str) -> Mapping[str, Any]:
        """Return a project's publishers (Prefect tasks) by name; none where it has no flow.py.

        Raises:
            BrokenFlowError: Its flow.py raises when it is imported.
        """
        path = self._flow_file(project)
        if path is None:
            return {}
        with self._lock:
            modified_ns = path.stat().st_mtime_ns
            loaded = self._loaded.get(path)
            if loaded is None or loaded.modified_ns != modified_ns:
                loaded = self._loaded[path] = _load(path, modified_ns)
        if loaded.broken:
            raise BrokenFlowError(loaded.broken)
        return loaded.publishers

    def _flow_file(self, project: str) -> Path | None:
        found = known_projects(self._folder).get(project)
        return found.flow_file if found else None


def _load(path: Path, modified_ns: int) -> _Loaded:
    try:
        module = _import(path)
    # The edge to a project's own code: whatever it raises is its runs' error.
    except (Exception, SystemExit):  # noqa: BLE001
        return _Loaded(modified_ns, {}, broken=traceback.format_exc())
    return _Loaded(modified_ns, dict(_defined_in(module)))


def _import(path: Path) -> ModuleType:
    name = f"shepherd_project_{path.parent.name.replace('-', '_')}_flow"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it is executed: dataclasses and Prefect look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _defined_in(module: ModuleType) -> list[tuple[str, Any]]:
    candidates = [item for item in vars(module).values() if type(item).__module__.startswith("prefect.")]
    functions = ((getattr(item, "fn", None), item) for item in candidates)
    return [
        (function.__name__, item)
        for function, item in functions
        if inspect.isfunction(function) and function.__module__ == module.__name__ and is_task_name(function.__name__)
    ]
