"""Writes the worker of a task: `python task_template.py --task_name "x" --result_file "y"`."""

import sys

from code_templates.task_template import main

if __name__ == "__main__":
    sys.exit(main())
