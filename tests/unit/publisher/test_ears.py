"""When silence says something: not to whom has not listened for a whole lease."""

from datetime import UTC, datetime, timedelta

from shepherd.publisher.ears import Ears

LEASE_S = 60


class World:
    """Clocks that a test moves, and two queues that are taken from each second."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.database_at = datetime(2026, 1, 31, tzinfo=UTC)
        self.generations: dict[str, int | None] = {"replies": 1, "beats": 1}
        self.ears = Ears("replies", "beats", lease=timedelta(seconds=LEASE_S), monotonic=lambda: self.monotonic)

    def pass_by(self, seconds: int, *, without: str = "") -> list[bool]:
        """Let seconds pass, each with a turn of every queue but one, and a look; return what was answered."""
        return [self._second(without) for _ in range(seconds)]

    def _second(self, without: str) -> bool:
        began_at = self.monotonic
        self.jump(1.0)
        for queue, generation in self.generations.items():
            if queue != without:
                self.ears.turned(queue, began_at=began_at, generation=generation)
        return self.look()

    def jump(self, seconds: float) -> None:
        self.monotonic += seconds
        self.database_at += timedelta(seconds=seconds)

    def look(self) -> bool:
        return self.ears.have_heard(database_at=self.database_at)


def test_who_has_just_begun_to_listen_knows_nothing_for_a_lease() -> None:
    answers = World().pass_by(LEASE_S + 5)

    assert not any(answers[: LEASE_S + 1])
    assert all(answers[LEASE_S + 3 :])


def test_a_consumer_that_was_established_anew_begins_anew() -> None:
    world = World()
    world.pass_by(LEASE_S + 5)

    world.generations["beats"] = 2
    answers = world.pass_by(LEASE_S + 5)

    assert not any(answers[:LEASE_S])
    assert answers[-1]


def test_a_queue_that_nobody_takes_from_leaves_one_deaf() -> None:
    world = World()
    world.pass_by(LEASE_S + 5)

    assert not any(world.pass_by(LEASE_S * 2, without="replies")[10:])
    assert not any(world.pass_by(LEASE_S - 1))
    assert world.pass_by(5)[-1]


def test_a_consumer_that_does_not_stand_is_not_listened_to() -> None:
    world = World()
    world.generations["beats"] = None

    assert not any(world.pass_by(LEASE_S * 2))


def test_a_process_that_stood_still_begins_anew_even_if_its_queues_seem_empty() -> None:
    world = World()
    world.pass_by(LEASE_S + 5)

    world.jump(120)

    assert not any(world.pass_by(LEASE_S))


def test_a_jump_of_either_clock_begins_anew() -> None:
    for seconds in (3600, -3600, 86_400, 6):
        world = World()
        world.pass_by(LEASE_S + 5)

        world.database_at += timedelta(seconds=seconds)

        assert not any(world.pass_by(LEASE_S))
        assert world.pass_by(5)[-1]


def test_a_clock_that_is_set_right_slowly_changes_nothing() -> None:
    world = World()
    world.pass_by(LEASE_S + 5)

    for _ in range(20):
        world.database_at += timedelta(seconds=1)
        assert world.pass_by(1) == [True]


def test_what_was_in_hand_when_nothing_waited_any_more_is_worked_through_after_one_more_turn() -> None:
    world = World()
    world.pass_by(5)
    assert not world.ears.are_done()

    world.ears.emptied()
    assert not world.ears.are_done()
    world.pass_by(1)
    assert not world.ears.are_done()
    world.pass_by(1)
    assert world.ears.are_done()
    world.pass_by(10)

    assert not world.ears.are_done()
