from shepherd.publisher.pace import Pace


def test_replies_are_gathered_while_many_tasks_are_out() -> None:
    pace = Pace()

    pace.published(200)
    pace.heard(2)

    assert 0 < pace.gather_s < 0.05


def test_nothing_waits_while_workers_may_wait_for_what_comes_next() -> None:
    pace = Pace()

    pace.published(8)
    pace.heard(4)

    assert pace.gather_s == 0


def test_a_reply_that_came_alone_is_not_kept_waiting_for_others() -> None:
    pace = Pace()

    pace.published(200)
    pace.heard(1)

    assert pace.gather_s == 0


def test_replies_to_what_another_task_publisher_has_published_do_no_harm() -> None:
    pace = Pace()

    pace.heard(500)
    pace.published(200)
    pace.heard(2)

    assert pace.gather_s > 0
