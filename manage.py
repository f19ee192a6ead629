#!/usr/bin/env python
"""Django's command line, with Shepherd's settings."""

import gc
import os
import sys

#: Python's own 700 has it look for garbage hundreds of times among what is imported, and stays: a sixth of the time in
#: which a Task Publisher starts.
_ALLOCATED_BEFORE_A_LOOK = 50_000


def main() -> None:
    gc.set_threshold(_ALLOCATED_BEFORE_A_LOOK)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shepherd.site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
