"""python manage.py import_raw FOLDER --slug NEW"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import ConcordError
from annotation.importers.raw import import_raw
from annotation.models import User


class Command(BaseCommand):
    help = "Make a new project of a raw export's folder: an equal ledger, or nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="as export_dataset --format raw wrote it")
        parser.add_argument("--slug", required=True, help="short name of the new project")
        parser.add_argument("--name", default="", help="its name; else the one in the folder")
        parser.add_argument("--admin", help="user name of its first admin")

    def handle(self, *args: Any, **options: Any) -> None:
        by = None
        if options["admin"]:
            by = User.objects.filter(username=options["admin"]).first()
            if by is None:
                raise CommandError(f"There is no user {options['admin']!r}.", returncode=2)
        try:
            made = import_raw(
                folder=options["folder"], slug=options["slug"], name=options["name"], by=by
            )
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=2) from problem
        self.stdout.write(
            f"Project {made.project.slug}: {made.comparisons:,} comparisons, {made.votes:,} votes, "
            f"{made.decisions:,} decisions."
        )
