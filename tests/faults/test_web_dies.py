"""Row 8: the web process is killed in a burst of submissions."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.faults.records import read_number
from tests.support.faults.system import FaultSystem, body
from tests.support.waiting import wait_until


def test_only_committed_runs_exist_after_the_web_process_was_killed_in_a_burst(faulty: FaultSystem) -> None:
    before = _count(faulty)
    burst = Burst(faulty)

    with burst.going_on():
        for kill in range(1, 4):
            burst.wait_answered(kill * 20)
            faulty.kill("web", may_repeat=False)
            faulty.system.start("web")
            faulty.system.wait_ready()

    again = {key: faulty.post(("step", {"key": key}), key=key)["id"] for key in burst.sent}
    assert again.items() >= burst.answered.items()
    assert len(set(again.values())) == len(burst.sent)
    assert _count(faulty) - before == len(burst.sent)
    faulty.conclude(
        "8",
        "web killed -9 in a burst of submissions",
        more=f"{len(burst.sent)} submissions, {len(burst.sent) - len(burst.answered)} of them cut off",
    )


@dataclass
class Burst:
    """Four callers that submit without a pause, each pipeline under a key of its own."""

    ours: FaultSystem
    #: What was sent, whether or not an answer came, and the ids of the runs that were promised.
    sent: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        over = threading.Event()
        with ThreadPoolExecutor(max_workers=4) as callers:
            calls = [callers.submit(self._submit, caller, over) for caller in range(4)]
            try:
                yield
            finally:
                over.set()
            for call in calls:
                call.result()

    def wait_answered(self, count: int) -> None:
        wait_until(lambda: len(self.answered) >= count, timeout_s=180, what=f"{count} answers")

    def _submit(self, caller: int, over: threading.Event) -> None:
        api = self.ours.system.api
        with httpx.Client(base_url=api.base_url, headers=api.headers, timeout=10, trust_env=False) as client:
            number = 0
            while not over.wait(0.01):
                key = f"{id(self)}-{caller}-{number}"
                document = body(("step", {"key": key}))
                self.sent.append(key)
                number += 1
                try:
                    answer = client.post("/runs", json=document, headers={"Idempotency-Key": key})
                except httpx.TransportError:
                    over.wait(0.2)
                    continue
                assert answer.status_code == httpx.codes.ACCEPTED, answer.text
                self.answered[key] = answer.json()["id"]


def _count(ours: FaultSystem) -> int:
    return read_number(ours.database_url, "SELECT count(*) FROM pipelines_run")
