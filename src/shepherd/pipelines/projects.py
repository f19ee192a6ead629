"""Which projects there are: the folders of `SHEPHERD_PROJECTS`, with no list to edit."""

from dataclasses import dataclass
from pathlib import Path

from shepherd.errors import ConfigurationError
from shepherd.names import is_project_name, project_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with a flow, with workers, or with both."""

    #: In the one spelling under which it is stored and shown, as in `ids-drr`.
    key: str
    folder: Path

    @property
    def flow_file(self) -> Path | None:
        """Its flow; None for a project that needs no code between tasks."""
        file = self.folder / "flow.py"
        return file if file.is_file() else None


def known_projects(folder: Path) -> dict[str, Project]:
    """Return the projects in `folder` by their key, in the order of the alphabet; read anew by each call.

    A sub-folder counts when it has a `flow.py` or a `workers/`. A folder that doesn't exist holds none.

    Raises:
        ConfigurationError: Two folders are spelled alike (`ids_drr` and `ids-drr`); the text names both.
    """
    found: dict[str, Project] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _is_project(path):
            continue
        key = project_key(path.name)
        if key in found:
            raise ConfigurationError(f"SHEPHERD_PROJECTS: {found[key].folder} and {path} are both the project {key!r}")
        found[key] = Project(key=key, folder=path)
    return dict(sorted(found.items()))


def _is_project(path: Path) -> bool:
    return is_project_name(path.name) and ((path / "flow.py").is_file() or (path / "workers").is_dir())
