"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from bench.support.services import Services


def describe(services: Services) -> dict[str, str]:
    """Return what somebody has to know who compares figures with his own."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "django": version("django"),
        "prefect": version("prefect"),
        "rabbitmq": services.broker_version(),
        "postgresql": services.postgres_version(),
    }


def load() -> float:
    """Return how many processes wanted a core during the last minute: before a measurement it should be near 0."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
