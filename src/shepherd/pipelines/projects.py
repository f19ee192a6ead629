"""Which projects there are: the folders of `SHEPHERD_PROJECTS`, with no list to edit."""

from dataclasses import dataclass, replace
from pathlib import Path

from shepherd.names import is_project_name, project_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with a flow, with workers, or with both."""

    #: In the one spelling under which it is stored and shown, as in `ids-drr`.
    key: str
    folder: Path
    #: Why nobody can say what is in it; empty when all is well.
    fault: str = ""

    @property
    def flow_file(self) -> Path | None:
        """Its flow; None for a project that needs no code between tasks."""
        file = self.folder / "flow.py"
        return file if file.is_file() else None


def known_projects(folder: Path) -> dict[str, Project]:
    """Return the projects in `folder` by their key, in the order of the alphabet; read anew by each call.

    A sub-folder counts when it has a `flow.py` or a `workers/`. A folder that doesn't exist holds none. What is wrong
    with one of them, as two folders that are spelled alike (`ids_drr` and `ids-drr`), is its own fault only.
    """
    found: dict[str, Project] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        fault = _fault(path)
        if fault is None:
            continue
        key = project_key(path.name)
        if key in found:
            alike = f"{found[key].folder} and {path} are both the project {key!r}"
            found[key] = replace(found[key], fault=alike)
        else:
            found[key] = Project(key=key, folder=path, fault=fault)
    return dict(sorted(found.items()))


def _fault(path: Path) -> str | None:
    """Return why a project's folder can't be used, empty if it can; None for what is no project."""
    try:
        is_project = is_project_name(path.name) and ((path / "flow.py").is_file() or (path / "workers").is_dir())
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"
    return "" if is_project else None
