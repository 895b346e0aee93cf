"""manage.py create_project --name "My project" --slug mine [--admin USERNAME]"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import ConcordError
from annotation.models import User
from annotation.services.projects import create_project


class Command(BaseCommand):
    help = "Make a project with its first scheme, guideline, retrain rule and admin."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--slug", required=True)
        parser.add_argument("--admin", help="username of its first admin")

    def handle(self, *args: Any, **options: Any) -> None:
        admin = None
        if options["admin"]:
            admin = User.objects.filter(username=options["admin"]).first()
            if admin is None:
                raise CommandError(f"There is no user {options['admin']!r}.", returncode=2)
        try:
            project = create_project(name=options["name"], slug=options["slug"], by=admin)
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from error
        self.stdout.write(f"Made project {project.slug}.")
