"""`manage.py prepare_server FILE`: what `make run` needs of the database before anything starts."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand

from shepherd.pipelines import tokens
from shepherd.site.local.secret_files import Credentials, read_credentials, write_credentials


class Command(BaseCommand):
    help = "Migrate the database, and make sure that the administrator and the API token of a file exist."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="where login and token are kept; written when they are new")

    def handle(self, *_: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        known = read_credentials(options["file"])
        user = _administrator(known)
        if tokens.user_of(known.token) is None:
            token = tokens.create_token(user, name="make run")
            known = Credentials(username=known.username, password=known.password, token=token)
        write_credentials(options["file"], known)


def _administrator(known: Credentials) -> User:
    # A password that was changed since stays changed.
    found = User.objects.filter(username=known.username).first()
    return found or User.objects.create_superuser(known.username, password=known.password)
