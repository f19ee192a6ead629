"""The fixtures that the other tests stand on."""

import threading

from django.contrib.auth import get_user_model
from django.db import connection


def test_a_test_starts_with_an_empty_database_1(database: str) -> None:
    assert get_user_model().objects.count() == 0

    get_user_model().objects.create_user("left over")


def test_a_test_starts_with_an_empty_database_2(database: str) -> None:
    assert get_user_model().objects.count() == 0

    get_user_model().objects.create_user("left over")


def test_other_threads_see_what_was_committed(database: str) -> None:
    get_user_model().objects.create_user("here")
    seen: list[str] = []

    thread = threading.Thread(target=lambda: seen.extend(get_user_model().objects.values_list("username", flat=True)))
    thread.start()
    thread.join()

    assert seen == ["here"]


def test_the_engine_is_the_one_named_in_the_url(database: str) -> None:
    assert database.startswith(connection.vendor)
