import subprocess
import sys

import pytest

HEAVY = ["django", "prefect", "pydantic", "polars", "pandas", "pyarrow", "numpy", "obstore", "aio_pika", "asyncio"]


@pytest.mark.parametrize("package", ["shepherd.worker", "shepherd.store"])
def test_importing_brings_in_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; print(*[name for name in {HEAVY} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []


def test_the_supervisor_brings_in_no_library_of_a_task() -> None:
    heavy = [name for name in HEAVY if name not in {"aio_pika", "asyncio"}]
    code = (
        f"import sys, shepherd.worker.supervisor, shepherd.broker.rabbitmq; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []
