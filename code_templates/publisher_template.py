"""Prints the publisher of a task: `python -m code_templates.publisher_template --task_name 'x'`.

Paste what it prints into the project's `flow.py`. A task needs a publisher only where code must run between two tasks.
"""

import argparse
import sys

from shepherd.names import function_name_fault

TEMPLATE = """\
from prefect import task

from shepherd.publisher import apublish_task_and_process_result


@task
async def {name}(context, pipeline, task_obj):
    # Before the task: the context may be changed here, and pipeline.data is what the task before returned.
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        # After the task: data is what the worker returned; the next task gets what is assigned here.
        pipeline.data = data
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Print the publisher of a task, to be pasted into a project's flow.py."
    )
    parser.add_argument(
        "--task_name", "--task-name", required=True, type=_task_name, help="as in transformers_list of a pipeline"
    )
    print(TEMPLATE.format(name=parser.parse_args().task_name), end="")
    return 0


def _task_name(text: str) -> str:
    # These would hide what the template itself needs.
    fault = function_name_fault(text, taken={"task", "apublish_task_and_process_result"})
    if fault:
        raise argparse.ArgumentTypeError(f"{text!r} {fault}")
    return text


if __name__ == "__main__":
    sys.exit(main())
