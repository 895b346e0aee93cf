"""manage.py simulated_labelers --project SLUG --file labelers.jsonl: their API tokens as JSON.

For tours and load tests on a laptop: each row's `name` becomes a labeler whose answers are of
kind `simulated` for ever, so that they never count as human ones.
"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.errors import ConcordError
from annotation.models import AnnotatorKind, Project, Role, User
from annotation.services.projects import add_member, annotator_for, issue_token


class Command(BaseCommand):
    help = "Make simulated labelers of a project and print a new API token for each."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--file", type=Path, required=True)

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.LAPTOP:
            raise CommandError("Simulated labelers are for laptop mode alone.", returncode=2)
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.", returncode=2)
        try:
            tokens = {name: self.token_of(project, name) for name in names(options["file"])}
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from error
        self.stdout.write(json.dumps(tokens))

    def token_of(self, project: Project, name: str) -> str:
        """A new token of the simulated labeler of this name, made a member at the first call."""
        user, _ = User.objects.get_or_create(username=name)
        if not project.memberships.filter(user=user).exists():
            add_member(project=project, user=user, role=Role.LABELER, by=None)
        annotator = annotator_for(user=user, project=project, kind=AnnotatorKind.SIMULATED)
        if annotator.kind != AnnotatorKind.SIMULATED:
            raise CommandError(f"{name!r} is a person in this project already.", returncode=2)
        return issue_token(user=user, name="simulation")[1]


def names(path: Path) -> list[str]:
    """The `name` of each row of a labelers.jsonl."""
    if not path.is_file():
        raise CommandError(f"There is no file {str(path)!r}.", returncode=2)
    return [json.loads(line)["name"] for line in path.read_text("utf-8").splitlines() if line]
