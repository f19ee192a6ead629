"""`manage.py prune --older-than 30d`: what nobody needs any more."""

import re
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from shepherd.errors import ShepherdError
from shepherd.site.pruning import Prune, period

#: As SQLite and PostgreSQL say it.
_NO_TABLE = re.compile("no such table|relation .* does not exist")
#: As a shell says of what Ctrl-C ended.
_INTERRUPTED = 130


class Command(BaseCommand):
    help = (
        "Remove runs that ended long ago with everything that only they need, also in the store, messages that nobody "
        "could use, and empty queues of names that nobody serves. Without --yes it only says what would go. Safe while "
        "the system runs; may be broken off and called again."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", required=True, metavar="30d", help="a number with s, m, h, d or w")
        parser.add_argument("--yes", action="store_true", help="do it")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            older_than = period(options["older_than"])
            prune = Prune(settings.SHEPHERD, older_than=older_than, now=datetime.now(UTC), say=self._say)
            if options["yes"]:
                prune.remove()
            else:
                prune.show()
                self._say("Nothing was removed. The same with --yes removes it.")
        except ShepherdError as error:
            raise CommandError(str(error)) from error
        except (OperationalError, ProgrammingError) as error:
            if _NO_TABLE.search(str(error)):
                reason = "the database has no tables: is SHEPHERD_DATABASE_URL, or this folder, the right one?"
                raise CommandError(reason) from error
            raise CommandError(f"the database does not answer: {error}. Call again to go on.") from error
        except KeyboardInterrupt:
            self._say("Broken off. Call again to go on.")
            sys.exit(_INTERRUPTED)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
