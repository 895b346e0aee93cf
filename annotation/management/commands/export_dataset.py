"""python manage.py export_dataset --project NAME --format FORMAT --out DIR"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import ConcordError
from annotation.exporters.files import FILES
from annotation.exporters.folder import FORMATS, write_export
from annotation.funnel import DECISIONS, WEIGHTS
from annotation.importers.command import project_named
from annotation.models import AnnotatorKind, Split

ASKED = (
    *("splits", "languages", "annotators", "decisions", "weights", "since", "until"),
    *("schemes", "guidelines", "sources", "licences", "axes", "tags"),
    *("accuracy", "checks", "agreement"),
)


class Command(BaseCommand):
    help = "Freeze a project's comparisons and write them with a manifest and a dataset card."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument("--format", required=True, choices=FORMATS)
        parser.add_argument("--files", choices=FILES, default=FILES[0])
        parser.add_argument("--out", required=True, type=Path, help="an empty or absent folder")
        parser.add_argument(
            "--splits",
            nargs="+",
            choices=Split.values,
            help="raw rows of the others are there too, marked filtered_split",
        )
        parser.add_argument("--languages", nargs="+", metavar="LANGUAGE")
        parser.add_argument(
            "--annotators",
            nargs="+",
            choices=AnnotatorKind.values,
            help="kinds whose votes count; else people, here and in imported data",
        )
        parser.add_argument(
            "--decisions",
            choices=DECISIONS,
            help="instead: a reviewer's decision stands in the place of the votes",
        )
        parser.add_argument("--since", metavar="DATE", help="votes from then on")
        parser.add_argument("--until", metavar="DATE", help="votes before then")
        for name in ("schemes", "guidelines"):
            parser.add_argument(f"--{name}", nargs="+", metavar="VERSION")
        for name in ("sources", "licences"):
            parser.add_argument(f"--{name}", nargs="+", metavar="NAME", help="of the prompt")
        parser.add_argument("--axes", nargs="+", metavar="AXIS", help="questions; the others go")
        parser.add_argument("--tags", nargs="+", metavar="TAG", help="of the comparison: one of")
        parser.add_argument(
            "--accuracy",
            type=float,
            metavar="SHARE",
            help="votes of annotators who were right on so many of their hidden checks",
        )
        parser.add_argument("--checks", type=int, metavar="NUMBER", help="of at least so many; 10")
        parser.add_argument(
            "--agreement",
            type=float,
            metavar="SHARE",
            help="comparisons whose votes agree at least so far",
        )
        parser.add_argument("--weights", choices=WEIGHTS, help="of votes, by their annotators")

    def handle(self, *args: Any, **options: Any) -> None:
        asked = {key: options[key] for key in ASKED}
        try:
            manifest = write_export(
                project=project_named(options["project"]),
                format=options["format"],
                files=options["files"],
                out=options["out"],
                query={key: value for key, value in asked.items() if value},
            )
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=2) from problem
        for file in manifest["files"]:
            self.stdout.write(f"{file['name']}: {file['rows']:,} rows")
        for bucket, number in manifest["funnel"].items():
            if number:
                self.stdout.write(f"  {bucket}: {number:,} votes")
        self.stdout.write(f"{manifest['votes']:,} votes in all; written to {options['out']}")
