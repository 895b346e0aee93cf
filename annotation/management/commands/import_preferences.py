"""python manage.py import_preferences --project NAME --format FORMAT FILE... [--columns ...]
[--values ...]"""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from annotation.errors import BadInput
from annotation.importers.command import ImportCommand
from annotation.importers.load import FileReport
from annotation.importers.parsers import PREFERENCE_FORMATS, TABLE, require_columns
from annotation.importers.stores import Store, preference_store
from annotation.importers.table import MEANINGS
from annotation.models import Project, Source


class Command(ImportCommand):
    help = "Import comparisons with judgments of outside annotators; every row is accounted for."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--format", required=True, choices=[*PREFERENCE_FORMATS, TABLE])
        parser.add_argument(
            "--columns",
            nargs="+",
            default=[],
            metavar="MEANING=COLUMN",
            help="of a csv: prompt=, and chosen= rejected= or first= second= winner=; of argilla "
            "and label-studio: prompt=, the field with the question",
        )
        parser.add_argument(
            "--values",
            nargs="+",
            default=[],
            metavar="MEANING=VALUE",
            help=f"what a csv's winner says when it means {', '.join(MEANINGS)}",
        )

    def source_name(self, options: Mapping[str, Any]) -> str:
        return str(options["format"])

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return preference_store(
            project=project,
            source=source,
            format=options["format"],
            columns=columns_of(options["columns"]),
            values=values_of(options["values"]),
        )

    def import_files(self, options: Mapping[str, Any]) -> list[FileReport]:
        """The columns of every table are looked at first: nothing is imported by a wrong one."""
        columns, values = columns_of(options["columns"]), values_of(options["values"])
        for path in options["files"]:
            require_columns(path, options["format"], columns, values)
        return super().import_files(options)


def columns_of(said: list[str]) -> dict[str, str]:
    """Meaning -> column. Raises BadInput for a word without =, or a meaning twice."""
    found: dict[str, str] = {}
    for one in said:
        meaning, sign, column = one.partition("=")
        if not sign or meaning in found:
            raise BadInput(f"--columns takes MEANING=COLUMN, each meaning once: {one!r}.")
        found[meaning] = column
    return found


def values_of(said: list[str]) -> dict[str, str]:
    """Value -> meaning. Raises BadInput for a word without =, or a value twice."""
    found: dict[str, str] = {}
    for one in said:
        meaning, sign, value = one.partition("=")
        if not sign or value in found:
            raise BadInput(f"--values takes MEANING=VALUE, each value once: {one!r}.")
        found[value] = meaning
    return found
