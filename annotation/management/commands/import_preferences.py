"""python manage.py import_preferences --project NAME --format FORMAT FILE... [--columns ...]"""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from annotation.errors import BadInput
from annotation.importers.command import ImportCommand
from annotation.importers.load import (
    PREFERENCE_FORMATS,
    TABLE,
    FileReport,
    Store,
    preference_store,
    require_columns,
)
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
            help="of a csv: prompt=, and chosen= rejected= or first= second= winner=",
        )

    def source_name(self, options: Mapping[str, Any]) -> str:
        return str(options["format"])

    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        return preference_store(
            project=project,
            source=source,
            format=options["format"],
            columns=columns_of(options["columns"]),
        )

    def import_files(self, options: Mapping[str, Any]) -> list[FileReport]:
        """The columns of every table are looked at first: nothing is imported by a wrong one."""
        columns = columns_of(options["columns"])
        if columns and options["format"] != TABLE:
            raise BadInput(f"--columns explain a csv, not {options['format']}.")
        if options["format"] == TABLE:
            for path in options["files"]:
                require_columns(path, columns)
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
