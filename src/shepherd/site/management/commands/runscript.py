"""`manage.py runscript worker_demon`, and with the file's ending too, as the first documents wrote it."""

import pkgutil
from argparse import ArgumentParser
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from shepherd.errors import ShepherdError
from shepherd.site import scripts


class Command(BaseCommand):
    help = "Run one of Shepherd's own programs: worker_demon is the Task Publisher."
    # Looking at every address takes longer than starting does; `manage.py check` and the web process do it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help=f"one of: {', '.join(script_names())}; the ending .py may stand there too")

    def handle(self, *_: Any, **options: Any) -> None:
        name = options["name"].removesuffix(".py")
        if name not in script_names():
            raise CommandError(f"There is no script {options['name']!r}. There are: {', '.join(script_names())}.")
        try:
            import_module(f"{scripts.__name__}.{name}").run()
        except ShepherdError as error:
            raise CommandError(str(error)) from error


def script_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(scripts.__path__))
