"""Serves the generic tasks: `python projects/generic_transformations/workers/columns.py`."""

import sys
from pathlib import Path

from shepherd.worker import Worker

# Started by its path, from any folder, Python looks for modules beside this file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import transformations

worker = Worker("columns")
for function in (
    transformations.skip_column,
    transformations.rename_column,
    transformations.merge_columns,
    transformations.split_column,
    transformations.fill_missing_fields,
    transformations.anonymize,
    transformations.aggregate,
):
    worker.task(function)

worker.run()
