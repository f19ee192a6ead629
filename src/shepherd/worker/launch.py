"""How the first process becomes the supervisor, and how the supervisor starts the author's file again."""

import json
import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from shepherd.errors import ConfigurationError
from shepherd.worker.config import WorkerConfig

#: In the supervisor's environment only: what the first process hands over. Not on the command line, which everybody
#: on the machine can read and which would show the broker's password.
VARIABLE: Final = "SHEPHERD_SUPERVISOR"
#: The folder that holds the package `shepherd`.
_HOME: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a supervisor is started with."""

    config: WorkerConfig
    #: Starts the author's file once more, as a child.
    command: tuple[str, ...]
    #: PYTHONPATH of the first process and of every child; None when it isn't set.
    python_path: str | None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> "Launch":
        """Return what the first process handed over, and restore the environment that children get.

        Raises:
            ConfigurationError: This process wasn't started by a worker's `run()`.
        """
        text = environ.pop(VARIABLE, "")
        if not text:
            raise ConfigurationError("the supervisor is started by worker.run(): call `python my_worker.py`")
        fields = json.loads(text)
        launch = cls(
            config=WorkerConfig.from_text(fields["config"]),
            command=tuple(fields["command"]),
            python_path=fields["python_path"],
        )
        environ.pop("PYTHONPATH", None)
        if launch.python_path is not None:
            environ["PYTHONPATH"] = launch.python_path
        return launch


def become_supervisor(config: WorkerConfig) -> NoReturn:
    """Replace this process, so that nothing which the author's file imported stays in memory beside its children."""
    python_path = os.environ.get("PYTHONPATH")
    fields = {"config": config.to_text(), "command": rerun_command(), "python_path": python_path}
    environ = {**os.environ, VARIABLE: json.dumps(fields)}
    if _HOME.name not in {"site-packages", "dist-packages"}:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_HOME), python_path]))
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a file of the author's that is called like a module of Python must not get into the supervisor.
    command = [sys.executable, "-P", "-m", "shepherd.worker.supervisor", config.name]
    os.execve(sys.executable, command, environ)  # noqa: S606  # no shell wanted


def rerun_command() -> list[str]:
    """Return the command that started this process, good from any working directory.

    Raises:
        ConfigurationError: The program came from standard input, so it can't be started again.
    """
    main = sys.modules["__main__"]
    arguments = sys.orig_argv[1:]
    if getattr(main, "__spec__", None) is not None:
        return [sys.executable, *arguments]
    file = getattr(main, "__file__", None)
    if file is None or file == "<stdin>":
        if "-c" in arguments:
            return [sys.executable, *arguments]
        raise ConfigurationError("a worker must be a file: its children start it again")
    place = next(index for index, given in enumerate(arguments) if Path(given).name == Path(file).name)
    arguments[place] = str(Path(file).absolute())
    return [sys.executable, *arguments]


def is_helper_process() -> bool:
    """Tell whether `multiprocessing` started this process."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return False
    # `parent_process` is set only after the author's file was imported; until then this attribute tells.
    is_importing = getattr(multiprocessing.current_process(), "_inheriting", False)
    return is_importing or multiprocessing.parent_process() is not None


def script_name() -> str:
    """Return what a worker without a name is called: its file, or its module."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else Path(getattr(main, "__file__", "") or "worker").stem
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)[:60] or "worker"
