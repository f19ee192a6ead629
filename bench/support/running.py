"""What every benchmark with services of its own does around its measuring."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from bench.support import machine
from bench.support.figures import print_last_line
from bench.support.services import Services, services_running


def run(measure: Callable[[Services, Namespace], Mapping[str, Any]], options: Namespace, **asked: Any) -> int:
    """Say what this is measured on, measure, and print the last line, with what was `asked` for; return 0."""
    with services_running() as services:
        about = machine.describe(services)
        print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
        load = machine.load()
        figures = measure(services, options)
    print_last_line({**figures, **asked, "load_before": load, "machine": about})
    return 0
