"""python manage.py import_preferences --project NAME --format FORMAT FILE..."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.load import PREFERENCE_FORMATS, Store, preference_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import comparisons with judgments of outside annotators; every row is accounted for."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--format", required=True, choices=list(PREFERENCE_FORMATS))

    def source_name(self, options: Mapping[str, Any]) -> str:
        return str(options["format"])

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return preference_store(project=project, source=source, format=options["format"])
