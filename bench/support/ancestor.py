"""The same five tasks in the old way: one process, pandas, a CSV file from task to task.

    python -m bench.support.ancestor URL FOLDER

Fetches the file, runs the tasks, and prints one JSON object: seconds from the start of the download to the last file,
rows after each task, and the most memory that the process ever had. Written as such workers are: each task reads the
file that the one before wrote, and writes its own.
"""

import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

Context = Mapping[str, Any]


def skip_column(context: Context, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=context["columns"])


def rename_column(context: Context, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns=context["rename_dict"])


def merge_columns(context: Context, frame: pd.DataFrame) -> pd.DataFrame:
    first, *others = context["columns"]
    merged = frame[first].astype(str)
    for name in others:
        merged = merged + context["separator"] + frame[name].astype(str)
    frame[context["output_column"]] = merged
    return frame


def anonymize(context: Context, frame: pd.DataFrame) -> pd.DataFrame:
    column = context["column"]
    frame[column] = frame[column].astype(str).str.replace(context["to_replace"], context["replace_val"], regex=False)
    return frame


def aggregate(context: Context, frame: pd.DataFrame) -> pd.DataFrame:
    pivot = pd.pivot_table(frame, index=context["index"], values=context["values"], aggfunc="mean", dropna=False)
    return pivot.reset_index()


TASKS: Final[dict[str, Callable[[Context, pd.DataFrame], pd.DataFrame]]] = {
    task.__name__: task for task in (skip_column, rename_column, merge_columns, anonymize, aggregate)
}


def main() -> int:
    url, folder = sys.argv[1], Path(sys.argv[2])
    tasks = json.loads(sys.stdin.read())
    began = time.monotonic()
    path = folder / "0.csv"
    with urllib.request.urlopen(url) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
    rows = []
    for number, task in enumerate(tasks, start=1):
        frame = TASKS[task["name"]](task["context"], pd.read_csv(path, low_memory=False))
        path = folder / f"{number}.csv"
        frame.to_csv(path, index=False)
        rows.append(len(frame))
        del frame
    took = time.monotonic() - began
    print(
        json.dumps(
            {"seconds": took, "rows": rows, "cpu_s": time.process_time(), "hwm_mb": _hwm_mb(), "result": str(path)}
        )
    )
    return 0


def _hwm_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
