"""python manage.py import_comparisons --project NAME --batch NAME FILE..."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.stores import Store, question_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import prompts with completions to be compared here; labelers get them at once."
    default_source = "comparisons"

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--batch", default="imported", help="made if there is none of the name")
        parser.add_argument("--answers", type=int, default=1, help="people who judge each")
        parser.add_argument("--skill", default="", help="of a new batch: only for who has it")
        parser.add_argument("--priority", type=int, default=0, help="of a new batch")

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return question_store(
            project=project,
            source=source,
            batch=options["batch"],
            answers_wanted=options["answers"],
            skill=options["skill"],
            priority=options["priority"],
        )
