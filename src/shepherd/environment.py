"""The settings file that `make run` leaves for programs started by hand beside it."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

#: Looked for in the working directory and in every folder above it.
ENV_FILE = Path(".shepherd") / "env"


def with_env_file(environ: Mapping[str, str], *, start: Path) -> dict[str, str]:
    """Return the settings of the nearest `.shepherd/env`, overridden by `environ`.

    A file that doesn't exist is no fault: then `environ` alone counts. `SHEPHERD_ENV_FILE` names another
    file; empty, it means none.
    """
    named = environ.get("SHEPHERD_ENV_FILE")
    if named == "":
        return dict(environ)
    path = Path(named) if named else _nearest(start)
    if path is None or not path.is_file():
        return dict(environ)
    return {**_parse(path.read_text(encoding="utf-8")), **environ}


def hand_on(settings: Mapping[str, str], environ: MutableMapping[str, str]) -> None:
    """Put what a settings file says for others into the environment: clients of S3 read `AWS_…` there themselves.

    For the composition root, before any thread starts.
    """
    for name, value in settings.items():
        if name.startswith("AWS_"):
            environ.setdefault(name, value)


def _nearest(start: Path) -> Path | None:
    folders = [start, *start.parents]
    return next((folder / ENV_FILE for folder in folders if (folder / ENV_FILE).is_file()), None)


def _parse(text: str) -> dict[str, str]:
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}
