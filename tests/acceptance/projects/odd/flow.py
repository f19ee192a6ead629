"""Publishers that do what they should not, and one that looks at every kind of data."""

import os
from pathlib import Path

import polars as pl
from prefect import task

from shepherd.publisher import apublish_task_and_process_result, publish_task_and_process_result


def _note(what):
    with Path(os.environ["TRIAL_CALLS"]).open("a") as calls:
        calls.write(f"{what}\n")


@task
async def fails(context, pipeline, task_obj):
    raise KeyError("no such key in the publisher")


@task
async def echo(context, pipeline, task_obj):
    """Publish twice: the second call gets the first one's result."""
    first, _ = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    second, exception_flag = await apublish_task_and_process_result(task_obj, {"changed": True}, "something else")
    if not exception_flag:
        pipeline.data = [first, second]


@task
async def skip_column(context, pipeline, task_obj):
    """Never publish."""


@task
def nap(context, pipeline, task_obj):
    _note("nap")
    data, exception_flag = publish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = data


@task
async def tell_failure(context, pipeline, task_obj):
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    _note(f"{exception_flag} {data}")


@task
async def frame(context, pipeline, task_obj):
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        table = data.load(as_=pl.DataFrame)
        # A frame of the publisher's own, in place of the worker's.
        pipeline.data = table.with_columns(c=pl.col("a") + pl.col("b"))


@task
async def columns_of(context, pipeline, task_obj):
    handle = pipeline.data
    columns, exception_flag = await apublish_task_and_process_result(task_obj, context, handle)
    if not exception_flag:
        pipeline.data = columns
