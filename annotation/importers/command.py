"""What the three import commands share: arguments, progress, the account, exit codes."""

import json
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from annotation.errors import BadInput, ConcordError
from annotation.importers.lines import count_bytes
from annotation.importers.load import FileReport, Load, Outcome, RowReport
from annotation.importers.stores import Store, source_for
from annotation.models import Project, Source

SHOWN_REFUSALS = 50
"""Per file; --report holds them all."""
BAD_INPUT = 2


def project_named(name: str) -> Project:
    """The project with this short name, else with this name. Raises BadInput listing what is."""
    found = Project.objects.filter(slug=name).first()
    if found is None and Project.objects.filter(name=name).count() == 1:
        found = Project.objects.get(name=name)
    if found is None:
        known = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)[:20])
        raise BadInput(f"There is no project {name!r}; there is {known or 'none yet'}.")
    return found


class ImportCommand(BaseCommand, ABC):
    """Files into a project; subclasses say what a row is."""

    default_source = ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".gz is fine too")
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument("--source", help="name of the source these rows come from")
        parser.add_argument("--licence", default="", help="licence of the source, e.g. MIT")
        parser.add_argument("--terms", default="", help="terms of use of a new source")
        parser.add_argument("--report", type=Path, help="write one JSON line per row here")

    @abstractmethod
    def store_for(self, project: Project, options: Mapping[str, Any], source: Source) -> Store:
        """What takes a row."""

    def source_name(self, options: Mapping[str, Any]) -> str:
        """A source's name where none is given: the same for every file of a kind, so that a
        renamed file is still the same rows."""
        return self.default_source

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            reports = self.import_files(options)
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=BAD_INPUT) from problem
        nothing = [report.path for report in reports if report.rows == report.refused]
        if nothing:
            raise CommandError(
                f"Not one row could be imported from {', '.join(nothing)}.", returncode=BAD_INPUT
            )

    def import_files(self, options: Mapping[str, Any]) -> list[FileReport]:
        """Every file's account, told as it is done. Nothing is written if a file can't be read."""
        project = project_named(options["project"])
        total = sum(count_bytes(path) for path in options["files"])
        name = options["source"] or self.source_name(options)
        terms = {key: options[key] for key in ("licence", "terms")}
        with ExitStack() as stack:
            told = _open_report(stack, options["report"], options["files"])
            bar = stack.enter_context(
                tqdm(total=total, unit="B", unit_scale=True, disable=None, desc="importing")
            )
            reports = []
            for path in options["files"]:
                account = _Account(self, path, told)
                load = Load(
                    project=project,
                    path=path,
                    source=partial(source_for, project=project, name=name, **terms),
                    store_for=partial(self.store_for, project, options),
                    format=options.get("format") or "",
                    on_row=account.row,
                    on_bytes=bar.update,
                )
                reports.append(load.run())
                account.close(reports[-1])
        return reports


def _open_report(stack: ExitStack, path: Path | None, inputs: Iterable[Path]) -> TextIO | None:
    if path is None:
        return None
    try:
        if path.exists() and any(path.samefile(one) for one in inputs):
            raise BadInput(f"{path} is a file to import; write the report to another.")
        return stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"Cannot write {path}: {error.strerror}.") from error


class _Account:
    """Says what became of the rows of one file, on the terminal and in the report."""

    def __init__(self, command: BaseCommand, path: Path, told: TextIO | None) -> None:
        self.command, self.path, self.told = command, path, told
        self.shown = 0

    def row(self, row: RowReport) -> None:
        if self.told:
            line: dict[str, Any] = {
                "file": self.path.name,
                "line": row.line,
                "outcome": row.outcome,
            }
            if row.reason:
                line["reason"] = row.reason
            if row.caught:
                line["caught"] = row.caught
            if row.left_out:
                line["left_out"] = sorted(set(row.left_out))
            self.told.write(json.dumps(line, ensure_ascii=False) + "\n")
        if row.outcome == Outcome.REFUSED:
            self.shown += 1
            if self.shown <= SHOWN_REFUSALS:
                self.say(f"{self.path.name}, line {row.line}: refused: {row.reason}")

    def close(self, report: FileReport) -> None:
        if self.shown > SHOWN_REFUSALS:
            self.say(f"{self.path.name}: {self.shown - SHOWN_REFUSALS} more refused, see --report.")
        self.say(
            f"{self.path.name}: {report.rows:,} rows: {report.imported:,} imported, "
            f"{report.already_there:,} already there, {report.refused:,} refused."
        )
        if report.in_other_split:
            self.say(
                f"{self.path.name}: {report.in_other_split:,} of them are in the split of their "
                "group, not in the one that the row says; --report names them."
            )
        if report.left_out:
            named = ", ".join(f"{name} ({count:,})" for name, count in report.left_out.items())
            self.say(f"{self.path.name}: not kept, with the number of rows: {named}.")
        if report.leaks or report.alike:
            self.say(
                f"{self.path.name}: in {report.leaks:,} of them a completion names its maker, in "
                f"{report.alike:,} two are near-identical; --report names them as caught."
            )

    def say(self, sentence: str) -> None:
        with tqdm.external_write_mode(file=self.command.stdout._out):
            self.command.stdout.write(sentence)
