"""The doctor beside a whole system."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.support.system import System
from tests.support.waiting import wait_until


def test_a_system_as_make_run_starts_it_is_found_in_perfect_health(new_system: Callable[..., System]) -> None:
    system = new_system()

    def healthy() -> dict[str, Any] | None:
        report = doctor(system)
        return report if report["levels"]["ok"] == len(report["findings"]) else None

    # Workers announce themselves, and queues are declared, in the first seconds.
    report = wait_until(healthy, timeout_s=60, what=f"a healthy system, instead of {doctor(system)}")

    assert report is not None
    checked = {row["check"] for row in report["findings"]}
    assert {"consumer_timeout", "guest", "orphans", "policies", "permissions", "prefect", "store"} <= checked


def doctor(system: System) -> dict[str, Any]:
    command = [sys.executable, "manage.py", "doctor", "--json"]
    done = subprocess.run(
        command, cwd=system.config.root, env=system.environ, capture_output=True, text=True, check=False
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == (report["levels"]["error"] == 0)
    return report
