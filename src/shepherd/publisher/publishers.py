"""The publishers that projects bring: the Prefect tasks defined in `projects/<name>/flow.py`, found by name."""

import importlib.util
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from shepherd.errors import ShepherdError
from shepherd.names import is_task_name
from shepherd.pipelines.projects import known_projects
from shepherd.pipelines.starting import UndecidedError

#: An import that takes longer is worth a sentence; Prefect itself takes two or three.
_PATIENCE_S: Final = 5.0


class BrokenFlowError(ShepherdError):
    """A project's flow.py can't be imported; the text is its traceback."""

    code = "flow_broken"

    @property
    def reason(self) -> str:
        """The exception alone, which a traceback ends with."""
        return str(self).strip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class _Loaded:
    publishers: Mapping[str, Any]
    broken: str = ""


class _Import:
    """One version of a flow.py on its way in, in a thread of its own: what hangs there can't be ended, only left."""

    def __init__(self, path: Path, modified_ns: int, *, on_ended: Callable[[], None], patience_s: float) -> None:
        self.modified_ns = modified_ns
        self._path = path
        self._on_ended = on_ended
        self._patience_s = patience_s
        self._began = time.monotonic()
        self._loaded: _Loaded | None = None
        self._is_ended = threading.Event()
        # A daemon, so that the process can end without it.
        threading.Thread(target=self._run, name=f"import-{path.parent.name}", daemon=True).start()

    def _run(self) -> None:
        self._loaded = _load(self._path)
        self._is_ended.set()
        self._on_ended()

    def result(self, project: str, *, wait_s: float) -> _Loaded:
        self._is_ended.wait(wait_s)
        if self._loaded is None:
            raise UndecidedError(self._reason(project))
        return self._loaded

    def _reason(self, project: str) -> str:
        if time.monotonic() - self._began < self._patience_s:
            return ""
        return (
            f"The flow.py of project {project!r} takes long to import: what needs its publishers goes on when that "
            "ends, or once the file has been mended."
        )


class Publishers:
    """All projects' publishers. Files are imported at first need, and again when they have changed.

    Importing never keeps a caller waiting for longer than it wants to.
    """

    def __init__(
        self, folder: Path, *, on_imported: Callable[[], None] = lambda: None, patience_s: float = _PATIENCE_S
    ) -> None:
        """`on_imported` is called, from any thread, whenever a file has been imported; it must not block."""
        self._folder = folder
        self._on_imported = on_imported
        self._patience_s = patience_s
        self._imports: dict[Path, _Import] = {}
        self._lock = threading.Lock()

    def names(self, project: str, *, wait_s: float = 0.0) -> frozenset[str] | None:
        """Return which tasks of a project have a publisher of their own; None if its flow.py can't say so.

        Raises:
            UndecidedError: As in `of`.
        """
        try:
            return frozenset(self.of(project, wait_s=wait_s))
        except BrokenFlowError:
            return None

    def of(self, project: str, *, wait_s: float = 0.0) -> Mapping[str, Any]:
        """Return a project's publishers (Prefect tasks) by name; none where it has no flow.py.

        Raises:
            BrokenFlowError: Its flow.py raises when it is imported.
            UndecidedError: It isn't imported yet, or its folder can't be used. Ask again, when `on_imported` was called
                or later.
        """
        path = self._flow_file(project)
        if path is None:
            return {}
        loaded = self._import(path).result(project, wait_s=wait_s)
        if loaded.broken:
            raise BrokenFlowError(loaded.broken)
        return loaded.publishers

    def _import(self, path: Path) -> _Import:
        try:
            modified_ns = path.stat().st_mtime_ns
        except OSError as error:
            # It was there a moment ago.
            raise UndecidedError(str(error)) from None
        with self._lock:
            found = self._imports.get(path)
            if found is None or found.modified_ns != modified_ns:
                found = self._imports[path] = _Import(
                    path, modified_ns, on_ended=self._on_imported, patience_s=self._patience_s
                )
        return found

    def _flow_file(self, project: str) -> Path | None:
        try:
            found = known_projects(self._folder).get(project)
            if found is None or not found.fault:
                return found.flow_file if found else None
            fault = found.fault
        except OSError as error:
            fault = str(error)
        # Not as if it had no publishers: its tasks would be published without them.
        raise UndecidedError(f"Project {project!r} can't be used: {fault}.")


def _load(path: Path) -> _Loaded:
    try:
        return _Loaded(dict(_defined_in(_import(path))))
    # The edge to a project's own code: whatever it raises is its runs' error.
    except (Exception, SystemExit):  # noqa: BLE001
        return _Loaded({}, broken=traceback.format_exc())


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
