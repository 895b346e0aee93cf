"""python manage.py forget_person --project NAME --annotator PSEUDONYM --reason WHY --by ADMIN"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import BadInput, ConcordError
from annotation.importers.command import project_named
from annotation.models import Annotator, Role, User
from annotation.services.forgetting import forget_person, replace_all


class Command(BaseCommand):
    help = "Delete a person's data from a project; datasets that held it are replaced."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument("--annotator", required=True, help="the pseudonym")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--by", required=True, metavar="ADMIN", help="who answers for it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            project = project_named(options["project"])
            annotator = Annotator.objects.filter(
                project=project, pseudonym=options["annotator"]
            ).first()
            if annotator is None:
                raise BadInput(f"The project has no annotator {options['annotator']!r}.")
            admins = User.objects.filter(memberships__project=project, memberships__role=Role.ADMIN)
            by = admins.filter(username=options["by"]).first()
            if by is None:
                raise BadInput(f"{options['by']!r} is no admin of the project.")
            made = forget_person(annotator=annotator, reason=options["reason"], by=by)
            replace_all(made.pk)
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=2) from problem
        stones = made.tombstones.select_related("snapshot", "successor").order_by("pk")
        self.stdout.write(f"Forgotten; {len(stones)} datasets replaced.")
        for stone in stones:
            instead = stone.successor.sha256[:12] if stone.successor else "none"
            self.stdout.write(f"  {stone.snapshot.sha256[:12]} -> {instead}")
