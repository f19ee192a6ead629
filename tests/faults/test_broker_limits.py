"""Rows 16 and 17: alarms of the broker, a queue with other arguments, a missing permission."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shepherd.broker import connect
from shepherd.broker.port import QueueSpec
from tests.support.faults.system import FaultSystem
from tests.support.given_brokers import ON_INSTALLED
from tests.support.waiting import wait_until

pytestmark = ON_INSTALLED

_ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "absolute", "1GB")),
    "disk": (("set_disk_free_limit", "900000000000000"), ("set_disk_free_limit", "50MB")),
}


@pytest.mark.parametrize("alarm", list(_ALARMS))
def test_an_alarm_of_the_broker_only_delays_what_was_accepted(faulty: FaultSystem, alarm: str) -> None:
    with _alarm(faulty, alarm):
        runs = [faulty.post("step", "step") for _ in range(10)]
        said = wait_until(lambda: _doctor_says(faulty, alarm), timeout_s=60, what=f"doctor about the {alarm} alarm")
        assert faulty.executions(runs[0]) == []

    for run in runs:
        faulty.wait_status(run, "succeeded")
    faulty.conclude("16", f"{alarm} alarm of the broker", more=f"doctor: {said[:80]}")


def test_a_queue_with_other_arguments_is_named_with_them_and_stops_nothing_else(faulty: FaultSystem) -> None:
    broker = connect(faulty.broker.url, name="beforehand")
    broker.declare(queues=[QueueSpec(name="shepherd.task.otherwise", arguments={"x-queue-type": "classic"})])
    publisher = faulty.system.pid("task-publisher")

    run = faulty.post("otherwise")
    faulty.injected.note("a queue with other arguments", may_repeat=False)
    wait_until(lambda: _named(faulty, "otherwise", "inequivalent arg"), timeout_s=30, what="queue and argument named")
    _assert_goes_on(faulty, publisher)

    faulty.broker.ctl("delete_queue", "shepherd.task.otherwise")
    broker.close()
    _assert_published_then_cancel(faulty, run, "otherwise")
    faulty.conclude("17", "a queue that exists with other arguments")


def test_a_missing_permission_is_named_and_stops_nothing_else(faulty: FaultSystem) -> None:
    publisher = faulty.system.pid("task-publisher")
    faulty.broker.ctl("set_permissions", "guest", "^(?!shepherd.task.forbidden).*", ".*", ".*")

    run = faulty.post("forbidden")
    faulty.injected.note("a missing permission", may_repeat=False)
    wait_until(lambda: _named(faulty, "forbidden", "ACCESS_REFUSED"), timeout_s=30, what="the queue and its refusal")
    _assert_goes_on(faulty, publisher)

    faulty.broker.ctl("set_permissions", "guest", ".*", ".*", ".*")
    _assert_published_then_cancel(faulty, run, "forbidden")
    faulty.conclude("17", "a missing permission")


def _assert_goes_on(faulty: FaultSystem, publisher: int) -> None:
    for _ in range(3):
        faulty.wait_status(faulty.post("step"), "succeeded")
    assert faulty.system.pid("task-publisher") == publisher
    assert faulty.system.is_running("task-publisher")


def _assert_published_then_cancel(faulty: FaultSystem, run: dict[str, Any], name: str) -> None:
    """The task gets its queue after all; nobody serves it, so the run is ended by hand."""
    queue = f"shepherd.task.{name}"
    wait_until(lambda: faulty.queued().get(queue, 0) > 0, timeout_s=90, what=f"a task in {queue}")
    assert faulty.call("cancel", run).is_success
    faulty.wait_status(run, "cancelled")
    faulty.broker.ctl("delete_queue", queue)


@contextmanager
def _alarm(faulty: FaultSystem, alarm: str) -> Iterator[None]:
    raised, cleared = _ALARMS[alarm]
    with faulty.injected.lasting(f"{alarm} alarm"):
        faulty.broker.ctl(*raised)
        try:
            yield
        finally:
            faulty.broker.ctl(*cleared)


def _doctor_says(faulty: FaultSystem, word: str) -> str:
    """Return the line about an alarm that `doctor` prints, or nothing."""
    command = [sys.executable, "manage.py", "doctor"]
    environ = {**faulty.system.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        command, cwd=faulty.system.config.root, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    lines = [line for line in done.stdout.splitlines() if "alarm" in line.lower()]
    return next((line for line in lines if word in line.lower()), "")


def _named(faulty: FaultSystem, *words: str) -> bool:
    return any(all(word in line for word in words) for line in faulty.system.log("task-publisher").splitlines())
