"""python manage.py issue_token --user NAME --name WHAT: prints a new API token, this once."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.errors import ConcordError
from annotation.models import User
from annotation.services.projects import issue_token


class Command(BaseCommand):
    help = "Print a new API token of a user; only its hash is kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True, help="user name")
        parser.add_argument("--name", required=True, help="what the token is for")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.", returncode=2)
        try:
            _, plaintext = issue_token(user=user, name=options["name"])
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from None
        self.stdout.write(plaintext)
