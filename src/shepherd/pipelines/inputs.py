"""What a task is given when nobody says otherwise: what the one before it returned."""

from collections.abc import Mapping
from typing import Any

from shepherd.pipelines import sql


def input_of(task: Mapping[str, Any]) -> str:
    """Return the JSON text of the input of a task (a row of `TASKS`) which is the next of its run."""
    if task["position"] == 0:
        found = sql.rows("SELECT data AS value FROM pipelines_run WHERE number = %s", [task["run_number"]])
    else:
        found = sql.rows(
            "SELECT result AS value FROM pipelines_task WHERE run_id = %s AND position = %s",
            [task["run_number"], task["position"] - 1],
        )
    return str(found[0]["value"])
