"""python manage.py import_demonstrations --project NAME FILE..."""

from collections.abc import Callable, Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.load import demonstration_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import prompts with an ideal answer each, for supervised fine-tuning."
    default_source = "demonstrations"

    def store_for(
        self, project: Project, source: Source, options: Mapping[str, Any]
    ) -> Callable[[Mapping[str, Any]], bool]:
        return demonstration_store(project=project, source=source)
