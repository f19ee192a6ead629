"""The Task Publisher, under the name that it always had."""

from shepherd.publisher import daemon


def run() -> None:
    daemon.main()
