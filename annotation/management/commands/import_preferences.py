"""python manage.py import_preferences --project NAME --format FORMAT FILE..."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.load import PREFERENCE_FORMATS, preference_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import comparisons with judgments of outside annotators; every row is accounted for."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--format", required=True, choices=list(PREFERENCE_FORMATS))

    def source_name(self, options: Mapping[str, Any]) -> str:
        return str(options["format"])

    def store_for(
        self, project: Project, source: Source, options: Mapping[str, Any]
    ) -> Callable[[Mapping[str, Any]], bool]:
        return preference_store(project=project, source=source, format=options["format"])
