"""Publishers of the fault suites."""

import asyncio

from prefect import task

from shepherd.publisher import apublish_task_and_process_result, publish_task_and_process_result


@task
async def led_step(context, pipeline, task_obj):
    context = {**context, "given": pipeline.data}
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = data


@task
async def led_slow_step(context, pipeline, task_obj):
    await asyncio.sleep(context.get("before", 0.5))
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = data


@task
def led_thread_step(context, pipeline, task_obj):
    data, exception_flag = publish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = data


@task
async def led_leak(context, pipeline, task_obj):
    print(f"publishing with {context!r}")
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if exception_flag:
        raise RuntimeError(f"{task_obj.context!r} gave {data}")
