"""Publishers of the acceptance tests."""

import time

from prefect import task

from shepherd.publisher import apublish_task_and_process_result, publish_task_and_process_result


@task
def nap(context, pipeline, task_obj):
    # The fault that is tried: a publisher that waits must not stop the others.
    time.sleep(5)
    data, exception_flag = publish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = data


@task
async def echo(context, pipeline, task_obj):
    context = {**context, "from_publisher": pipeline.data}
    data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)
    if not exception_flag:
        pipeline.data = [data["context"], "changed"]
