"""`manage.py doctor`: what is wrong with this installation, why it matters, and the command that mends it."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from shepherd.site.doctor import report
from shepherd.site.doctor.examination import examine, exit_status
from shepherd.site.doctor.situation import look


class Command(BaseCommand):
    help = (
        "Look at broker, database, store and Prefect, and say what is wrong, why it matters and what mends it. "
        "Ends with 1 if something would lose or stall work. Changes nothing."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def handle(self, *_: Any, **options: Any) -> None:
        found = examine(look(settings.SHEPHERD))
        self.stdout.write(report.as_json(found) if options["json"] else report.as_text(found))
        sys.exit(exit_status(found))
