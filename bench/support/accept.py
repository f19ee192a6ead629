"""Accept so many runs at once, as the API does one by one: `python -m bench.support.accept RUNS [TASK ...]`.

Prints one line of JSON: when it began and ended, by the machine's clock.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import django

#: Runs that one transaction accepts.
_AT_ONCE: Final = 500
_TASKS: Final = ("bench_first", "bench_second")


def main(count: int, names: tuple[str, ...]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shepherd.site.settings")
    django.setup()

    from django.contrib.auth.models import User
    from django.db import connection, transaction

    from shepherd.domain.pipeline import parse_pipeline
    from shepherd.pipelines import services

    user, _ = User.objects.get_or_create(username="bench")
    connection.ensure_connection()
    began = time.time()
    for first in range(0, count, _AT_ONCE):
        with transaction.atomic():
            for n in range(first, min(first + _AT_ONCE, count)):
                services.accept(parse_pipeline(_document(n, names)), by=user, now=datetime.now(UTC))
    print(json.dumps({"began": began, "ended": time.time()}))


def _document(n: int, names: tuple[str, ...]) -> dict[str, Any]:
    tasks = [{"name": name, "order_no": order, "context": {}} for order, name in enumerate(names, 1)]
    # What all contenders hand from task to task.
    tasks[0]["context"] = {"n": n, "source": "bench", "columns": ["id", "name", "value"]}
    return {"pipeline_name": "bench", "data_url": "", "project": "bench", "transformers_list": tasks}


if __name__ == "__main__":
    main(int(sys.argv[1]), tuple(sys.argv[2:]) or _TASKS)
