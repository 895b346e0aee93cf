"""python manage.py import_demonstrations --project NAME FILE..."""

from collections.abc import Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.stores import Store, demonstration_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import prompts with an ideal answer each, for supervised fine-tuning."
    default_source = "demonstrations"

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return demonstration_store(project=project, source=source)
