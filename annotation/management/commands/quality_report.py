"""manage.py quality_report --project NAME [--whose simulated]: whom to look at, as JSON."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import ConcordError
from annotation.importers.command import project_named
from annotation.models import AnnotatorKind
from annotation.services.quality import annotators_of


class Command(BaseCommand):
    help = "Print each annotator's figures and why to look at them, one JSON object by pseudonym."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument(
            "--whose",
            nargs="+",
            choices=AnnotatorKind.values,
            default=[AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE],
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = annotators_of(project_named(options["project"]), options["whose"])
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=2) from problem
        told = {
            one.pseudonym: {
                "answers": one.answers,
                "agreement": one.agreement,
                "orders_rightly": one.dawid_skene.right if one.dawid_skene else None,
                "reasons": one.reasons,
            }
            for one in found
        }
        self.stdout.write(json.dumps(told))
