"""What a task author's file builds: named functions, and the call that makes the file a worker."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar, overload

from shepherd.environment import hand_on, with_env_file
from shepherd.errors import ConfigurationError, InvalidInputError
from shepherd.worker.child import ChildSetup, serve
from shepherd.worker.config import WorkerConfig
from shepherd.worker.launch import become_supervisor, is_helper_process, script_name
from shepherd.worker.task import Task, task_of

Function = TypeVar("Function", bound=Callable[..., Any])

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class Worker:
    """The tasks of one file, and the worker that serves them."""

    def __init__(self, name: str = "") -> None:
        """Name the worker, for logs and pages; without a name it is called like its file.

        Raises:
            InvalidInputError: The name holds something else than letters, digits, `-`, `_` and `.`, or is too long.
        """
        if name and not _NAME.fullmatch(name):
            raise InvalidInputError.at("worker", f"{name!r} must be 1 to 60 letters, digits, '-', '_' and '.'")
        self._name = name
        self._tasks: dict[str, Task] = {}

    @overload
    def task(self, function: Function) -> Function: ...
    @overload
    def task(
        self,
        *,
        name: str = "",
        retries: int | None = None,
        backoff: float | None = None,
        retry_on_lost: int | None = None,
        wait_timeout: float | None = None,
        run_timeout: float | None = None,
    ) -> Callable[[Function], Function]: ...
    def task(
        self,
        function: Function | None = None,
        *,
        name: str = "",
        retries: int | None = None,
        backoff: float | None = None,
        retry_on_lost: int | None = None,
        wait_timeout: float | None = None,
        run_timeout: float | None = None,
    ) -> Function | Callable[[Function], Function]:
        """Serve the function as the task of its name, or of `name`; the function itself stays as it is.

        The other arguments are the task's policy where a caller says nothing else, times in seconds: how many attempts
        may follow a failed one, the first pause between them, how many may follow a lost one, how long the task may
        wait for a worker, and how long one attempt may run before it is ended with everything that it started.

        Raises:
            InvalidInputError: The name, the parameters or the policy can't be a task's, or the name is taken; the text
                says which.
        """
        policy = _stated(
            retries=retries,
            backoff=backoff,
            retry_on_lost=retry_on_lost,
            wait_timeout=wait_timeout,
            run_timeout=run_timeout,
        )
        if function is None:
            return lambda given: self._add(given, name=name, policy=policy)
        return self._add(function, name=name, policy=policy)

    def add_task(
        self,
        function: Callable[..., Any],
        *,
        name: str = "",
        retries: int | None = None,
        backoff: float | None = None,
        retry_on_lost: int | None = None,
        wait_timeout: float | None = None,
        run_timeout: float | None = None,
    ) -> Self:
        """Serve the function as `task` does, and return the worker, so that calls can be chained."""
        policy = _stated(
            retries=retries,
            backoff=backoff,
            retry_on_lost=retry_on_lost,
            wait_timeout=wait_timeout,
            run_timeout=run_timeout,
        )
        self._add(function, name=name, policy=policy)
        return self

    def run(self, arguments: Sequence[str] | None = None) -> None:
        """Turn this process into the worker; nothing after this call is executed.

        Called once in each of several processes: the first becomes the supervisor, which starts this file again to
        execute tasks. The call needs no `if __name__ == "__main__":`. Options come from the command line, see `--help`.

        Raises:
            SystemExit: The worker ended, or an option is wrong.
        """
        setup = ChildSetup.taken_from(os.environ)
        if setup is not None:
            serve(self._tasks, setup)
            sys.exit(0)
        # A helper that `multiprocessing` starts imports the author's file once more, for its definitions only.
        if is_helper_process():
            return
        self._supervise(sys.argv[1:] if arguments is None else arguments)

    def start_worker(self) -> None:
        """Run, under the name that this had first."""
        self.run()

    def _add(self, function: Function, *, name: str, policy: dict[str, Any]) -> Function:
        task = task_of(function, name=name, policy=policy)
        if task.name in self._tasks:
            raise InvalidInputError.at(f"task {task.name!r}", "is defined twice in this worker")
        self._tasks[task.name] = task
        return function

    def _supervise(self, arguments: Sequence[str]) -> None:
        hand_on(with_env_file(os.environ, start=Path.cwd()), os.environ)
        try:
            config = WorkerConfig.read(
                arguments, os.environ, default_name=self._name or script_name(), tasks=sorted(self._tasks)
            )
            if not self._tasks:
                raise ConfigurationError("this worker has no task; decorate a function with @worker.task")
            become_supervisor(config)
        except ConfigurationError as error:
            sys.exit(f"{script_name()}: {error}")


def _stated(**policy: float | None) -> dict[str, Any]:
    return {name: value for name, value in policy.items() if value is not None}
