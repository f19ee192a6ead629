"""The workers of the acceptance tests. Each execution leaves a line in the effect ledger: its task, its worker."""

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from shepherd.worker import Worker

sys.path.insert(0, os.environ["TRIAL_TRANSFORMATIONS"])

import transformations

worker = Worker("trial")


def noted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with Path(os.environ["TRIAL_LEDGER"]).open("a") as ledger:
            ledger.write(f"{function.__name__} {os.getppid()}\n")
        return function(*args)

    wrapper.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return wrapper


def nap(context: dict[str, Any], data: Any) -> Any:
    """Wait for `seconds`, then return the data."""
    # What the task is for: work that takes as long as a test wants.
    time.sleep(context.get("seconds", 0))
    return data


def echo(context: dict[str, Any], data: Any) -> dict[str, Any]:
    return {"context": context, "data": data}


def fails(context: dict[str, Any]) -> None:
    print("about to fail")
    raise LookupError(f"no {context['wanted']} here")


def tell_failure(context: dict[str, Any]) -> None:
    raise LookupError("told to the publisher")


def frame(context: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({"a": [1, 2], "b": [10, 20]})


def columns_of(context: dict[str, Any], data: pl.DataFrame) -> dict[str, list[int]]:
    return data.to_dict(as_series=False)


for task in (
    transformations.skip_column,
    transformations.rename_column,
    transformations.merge_columns,
    transformations.anonymize,
    transformations.aggregate,
    nap,
    echo,
    fails,
    tell_failure,
    frame,
    columns_of,
):
    worker.add_task(noted(task))

worker.run()
