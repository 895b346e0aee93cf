"""python manage.py create_user --username NAME [--project SLUG --role ROLE] [--password-stdin]

Without --password-stdin a password is asked for on a terminal, twice.
"""

import getpass
import sys
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from annotation.errors import ConcordError
from annotation.models import Project, Role, User
from annotation.services.audit import record
from annotation.services.projects import add_member


class Command(BaseCommand):
    help = "Make a user and, with --project and --role, a member of a project."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--username", required=True)
        parser.add_argument("--project", help="short name of a project")
        parser.add_argument("--role", choices=Role.values, help="the role in it")
        parser.add_argument(
            "--language", action="append", default=[], help="a language this person reads"
        )
        parser.add_argument("--email", default="", help="where mails to an admin go")
        parser.add_argument(
            "--staff", action="store_true", help="may make projects; sees the Django admin"
        )
        parser.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if (options["project"] is None) != (options["role"] is None):
            raise CommandError("--project and --role come together.", returncode=2)
        password = sys.stdin.readline().rstrip("\n") if options["password_stdin"] else _asked()
        try:
            with transaction.atomic():
                user = _create(
                    options["username"], password, options["email"], staff=options["staff"]
                )
                if options["project"] is not None:
                    _join(user, options)
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from None
        self.stdout.write(f"Made user {user.username}.")


def _create(username: str, password: str, email: str, *, staff: bool) -> User:
    user = User(username=username, email=email, is_staff=staff)
    try:
        validate_password(password, user)
        user.set_password(password)
        user.full_clean()
    except ValidationError as error:
        raise CommandError(f"{username!r}: {' '.join(error.messages)}", returncode=2) from None
    user.save()
    record(action="user.create", target=user, username=username, staff=staff)
    return user


def _join(user: User, options: dict[str, Any]) -> None:
    project = Project.objects.filter(slug=options["project"]).first()
    if project is None:
        raise CommandError(f"There is no project {options['project']!r}.", returncode=2)
    add_member(
        project=project, user=user, role=options["role"], by=None, languages=options["language"]
    )


def _asked() -> str:
    if not sys.stdin.isatty():
        raise CommandError("Standard input is no terminal: use --password-stdin.", returncode=2)
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two passwords differ.", returncode=2)
    return password
