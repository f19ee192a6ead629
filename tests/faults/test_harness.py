"""The harness itself: a system without faults has nothing to find, and the checker finds what is wrong."""

from tests.support.faults.system import FaultSystem


def test_a_system_without_faults_executes_each_task_once(faulty: FaultSystem) -> None:
    before = faulty.findings()
    runs = [faulty.post(("step", {"n": n}), ("step", {"n": -n})) for n in range(20)]
    runs += [faulty.post(("led_step", {"n": n}), ("step", {"n": -n}), project="led") for n in range(5)]

    found = faulty.conclude("0", "none")

    assert found.executions - before.executions == 2 * len(runs)
    assert found.repeated == before.repeated
    assert found.runs["succeeded"] - before.runs["succeeded"] == len(runs)
