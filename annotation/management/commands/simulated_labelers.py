"""manage.py simulated_labelers --project SLUG --file labelers.jsonl: their API tokens as JSON.

For tours and load tests on a laptop: each row's `name` becomes a labeler whose answers are of
kind `simulated` for ever, so that they never count as human ones.
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.errors import BadInput, ConcordError
from annotation.importers.lines import BadRow, read_rows
from annotation.importers.rows import Refused, parse_json, require, text_of
from annotation.models import AnnotatorKind, Project, Role, User
from annotation.services.projects import add_member, annotator_for
from annotation.services.tokens import issue_token


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
            tokens = {}
            for line, name in names(options["file"]):
                if name in tokens:
                    raise BadInput(f"line {line}: the name {name!r} stands twice.")
                tokens[name] = issue_token(user=labeler(project, line, name), name="simulation")[1]
        except ConcordError as error:
            raise CommandError(error.detail, returncode=2) from error
        self.stdout.write(json.dumps(tokens))


def labeler(project: Project, line: int, name: str) -> User:
    """The simulated labeler of this name, made at the first call. Raises BadInput for a name that
    is no username or belongs to anybody else."""
    user = User.objects.filter(username=name).first()
    if user is None:
        user = User(username=name)
        user.set_unusable_password()
        try:
            user.full_clean()
        except ValidationError as error:
            raise BadInput(f"line {line}: {name!r}: {' '.join(error.messages)}") from None
        user.save()
    elif not user.annotators.filter(project=project, kind=AnnotatorKind.SIMULATED).exists():
        raise BadInput(f"line {line}: {name!r} is no simulated labeler of this project.")
    if not project.memberships.filter(user=user).exists():
        add_member(project=project, user=user, role=Role.LABELER, by=None)
    annotator_for(user=user, project=project, kind=AnnotatorKind.SIMULATED)
    return user


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and `name` of each row of a labelers.jsonl. Raises BadInput for a row without."""
    for raw in read_rows(path):
        try:
            if isinstance(raw, BadRow):
                raise Refused(raw.reason)
            row = parse_json(raw)
            require(row, "name")
            yield raw.line, text_of(row["name"], "name")
        except Refused as refused:
            raise BadInput(f"line {raw.line}: {refused}.") from None
