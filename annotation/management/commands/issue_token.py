"""python manage.py issue_token --user NAME --name WHAT: prints a new API token, this once.

--scope (again and again), --project and --days narrow it.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.errors import ConcordError
from annotation.models import Project, Scope, User
from annotation.services.tokens import in_days, issue_token


class Command(BaseCommand):
    help = "Print a new API token of a user; only its hash is kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True, help="user name")
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            help="what it may be used for; left out: all that the user's roles allow",
        )
        parser.add_argument("--project", help="short name of the only project it opens")
        parser.add_argument("--days", type=int, help="how long it lives; left out: until revoked")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.", returncode=2)
        try:
            _, plaintext = issue_token(
                user=user,
                name=options["name"],
                scopes=options["scope"],
                project=_project(options["project"]),
                expires_at=in_days(options["days"]),
            )
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from None
        self.stdout.write(plaintext)


def _project(slug: str | None) -> Project | None:
    if slug is None:
        return None
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"There is no project {slug!r}.", returncode=2)
    return project
