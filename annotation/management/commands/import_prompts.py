"""python manage.py import_prompts --project NAME FILE..."""

from collections.abc import Mapping
from typing import Any

from annotation.importers.command import ImportCommand
from annotation.importers.stores import Store, prompt_store
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import prompts; an imported split is honoured, else a hash of the thread decides."
    default_source = "prompts"

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return prompt_store(project=project, source=source)
