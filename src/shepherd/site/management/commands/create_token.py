"""`manage.py create_token USER`: a token to call the API with."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from shepherd.pipelines import tokens


class Command(BaseCommand):
    help = "Make an API token for a user and print it. It is shown this once: only its checksum is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="token", help="what it is for, to tell it from others later")

    def handle(self, *_: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        self.stdout.write(tokens.create_token(user, name=options["name"]))
