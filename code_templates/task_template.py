"""Writes the worker of a task: `python task_template.py --task_name "x" --result_file "y"`."""

import argparse
import sys
from pathlib import Path

from shepherd.names import function_name_fault

TEMPLATE = '''\
"""Executes the task {name}: start it with `python {file}` on any server that reaches RabbitMQ."""

import logging
from typing import Any

from shepherd.worker import Worker

logger = logging.getLogger(__name__)
worker = Worker("{name}")


@worker.task
def {name}(context: dict[str, Any], data: Any) -> Any:
    """Say in one sentence what this task does: the catalogue shows it."""
    try:
        # The task's logic goes here. `context` holds what the pipeline says under this task's name, `data` what the
        # task before returned. Other functions may be called, and what is printed or logged is shown with the run.
        result = data
    except Exception:
        logger.exception("{name} failed")
        # Raised again, it answers the publisher: the run stops here and shows the exception's text and traceback.
        raise
    return result


worker.run()
'''


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the worker of a task, with a place for its logic.")
    parser.add_argument(
        "--task_name", "--task-name", required=True, type=_task_name, help="as in transformers_list of a pipeline"
    )
    parser.add_argument(
        "--result_file", "--result-file", required=True, type=Path, help="what to write; .py is added if missing"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that exists")
    arguments = parser.parse_args()
    path = _with_ending(arguments.result_file)
    try:
        _write(path, TEMPLATE.format(name=arguments.task_name, file=path.name), is_forced=arguments.force)
    except FileExistsError:
        parser.error(f"{path} exists; add --force to write over it")
    except OSError as error:
        parser.error(f"{path} can't be written: {error.strerror}")
    print(f"{path} is written. Put the logic into {arguments.task_name}(), then start it: python {path}")
    return 0


def _task_name(text: str) -> str:
    # These would hide what the template itself needs.
    fault = function_name_fault(text, taken={"worker", "Worker", "logger", "logging", "Any", "Exception"})
    if fault:
        raise argparse.ArgumentTypeError(f"{text!r} {fault}")
    return text


def _with_ending(path: Path) -> Path:
    return path if path.suffix == ".py" else path.with_name(f"{path.name}.py")


def _write(path: Path, text: str, *, is_forced: bool) -> None:
    with path.open("w" if is_forced else "x", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
