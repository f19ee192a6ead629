"""Several runs at once, on the real engines."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine
from tests.model.model import hushed

#: Neither deadlines nor shrinking: how long it takes is a matter of the machine, and the shortest way to a fault is for
#: the exhaustive model to find.
_SETTINGS = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_to_several_runs_all_end_and_each_change_is_written_down(database: str) -> None:
    with hushed():
        run_state_machine_as_test(Machine, settings=_SETTINGS)
