import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_task_publisher_starts_without_what_only_pages_the_api_and_prefect_need() -> None:
    heavy = ["ninja", "pydantic", "prefect", "httpx", "django.contrib.admin"]
    code = (
        "import sys, django; sys.argv = ['manage.py', 'runscript', 'worker_demon']; django.setup(); "
        "import shepherd.site.scripts.worker_demon, shepherd.broker.rabbitmq; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "shepherd.site.settings", "PYTHONPATH": str(ROOT / "src")}

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)

    assert found.stdout.split() == []
