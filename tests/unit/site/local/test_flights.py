"""The address of the first pipeline's data."""

import urllib.request
from pathlib import Path

from shepherd.site.local import flights


def test_the_data_has_the_same_address_at_the_next_start_so_that_a_run_can_be_repeated(tmp_path: Path) -> None:
    with flights.serving(tmp_path) as first:
        pass

    with flights.serving(tmp_path) as second, urllib.request.urlopen(second) as answer:
        header = answer.readline()

    assert second == first
    assert header.startswith(b"year,month,day")


def test_another_port_is_taken_when_that_of_last_time_is_in_use(tmp_path: Path) -> None:
    with flights.serving(tmp_path) as first, flights.serving(tmp_path) as second:
        assert second != first
    (tmp_path / "port").write_text("none")

    with flights.serving(tmp_path) as third:
        assert third.endswith("/flights.csv")
