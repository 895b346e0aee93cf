"""A file into the ledger: in chunks, a savepoint per row, every row accounted for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import DataError, IntegrityError, transaction

from annotation.errors import BadInput, ConcordError
from annotation.importers import unpaired
from annotation.importers.csv_rows import is_table, read_table
from annotation.importers.lines import BadRow, RawRow, Rows, read_rows
from annotation.importers.parquet import is_parquet, read_parquet
from annotation.importers.parsers import UNPAIRED
from annotation.importers.rows import Refused, clip, parse_json
from annotation.importers.stores import PreferenceStore, Store, Stored
from annotation.leaks import ALIKE, LEAK
from annotation.models import Project, Source, User
from annotation.services.audit import record

FEWEST_TOGETHER = 10
CHUNK_ROWS = 100
CHUNK_BYTES = 4_000_000
"""A chunk ends at whichever comes first. It is one transaction: others wait for it on SQLite."""
MOST_FIELDS = 100
"""Names of fields that are counted: a file may well make up a new one for every row."""


class Outcome(StrEnum):
    """What became of a row."""

    IMPORTED = "imported"
    ALREADY_THERE = "already there"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row of a file: its line, what became of it, why it was refused, or else a remark."""

    line: int
    outcome: Outcome
    reason: str = ""
    caught: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class FileReport:
    """The account of one file; rows is the sum of the other three."""

    path: str
    sha256: str
    rows: int = 0
    imported: int = 0
    already_there: int = 0
    refused: int = 0
    in_other_split: int = 0
    """Of those that were not refused: they went where their group was already."""
    leaks: int = 0
    """Of those too: a completion names its maker (annotation/leaks.py)."""
    alike: int = 0
    """And: two completions are near-identical."""
    left_out: dict[str, int] = field(default_factory=dict)
    """And: rows with a field that is not kept, by the field's name."""

    def count(self, row: RowReport) -> None:
        self.rows += 1
        self.imported += row.outcome == Outcome.IMPORTED
        self.already_there += row.outcome == Outcome.ALREADY_THERE
        self.refused += row.outcome == Outcome.REFUSED
        self.in_other_split += row.outcome != Outcome.REFUSED and bool(row.reason)
        self.leaks += row.caught == LEAK
        self.alike += row.caught == ALIKE
        for name in set(row.left_out):
            if name in self.left_out or len(self.left_out) < MOST_FIELDS:
                self.left_out[name] = self.left_out.get(name, 0) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """One file on its way into a project.

    source, store_for: asked anew by each chunk, inside its transaction, so that a file whose rows
    are all refused leaves no source and no batch behind.
    """

    project: Project
    path: Path
    source: Callable[[], Source]
    store_for: Callable[[Source], Store]
    on_row: Callable[[RowReport], object] = field(default=lambda row: None)
    on_bytes: Callable[[int], object] = field(default=lambda read: None)
    format: str = ""
    """Of a preference file: it says how rows are read (read_as)."""
    skip: int = 0
    """Rows that an earlier run, which was cut off, had done with."""
    by: User | None = None

    def run(self) -> FileReport:
        """Import every row that can be; the account. Raises BadInput for an unreadable file."""
        report = FileReport(self.path.name, file_sha256(self.path))
        try:
            rows = islice(read_as(self.path, self.format, self.on_bytes), self.skip, None)
            for chunk in _chunks(rows):
                with transaction.atomic():
                    store = self.store_for(self.source())
                    outcomes = _take_all(store, chunk)
                    if all(one.outcome == Outcome.REFUSED for one in outcomes):
                        transaction.set_rollback(True)  # nor keep a source made for nothing
                for outcome in outcomes:  # told once they are committed
                    report.count(outcome)
                    self.on_row(outcome)
        finally:
            if report.imported:
                record(
                    action="file.import",
                    target=self.source(),
                    project=self.project,
                    actor=self.by,
                    **asdict(report),
                )
        return report


def read_any(path: Path, on_bytes: Callable[[int], object] = lambda read: None) -> Rows:
    """Rows of a file by what it is: Parquet by its first bytes, a table by its name, else JSON.
    Raises BadInput if it can't be opened."""
    if is_parquet(path):
        return read_parquet(path, on_bytes)
    return (read_table if is_table(path) else read_rows)(path, on_bytes)


def read_as(path: Path, format: str, on_bytes: Callable[[int], object] = lambda read: None) -> Rows:
    """The same, as a format reads them: several rows of an unpaired file are one comparison."""
    rows = read_any(path, on_bytes)
    return unpaired.put_together(rows) if format == UNPAIRED else rows


def _take_all(store: Store, chunk: Sequence[RawRow | BadRow]) -> list[RowReport]:
    """What became of each row: as many together as are new, and one by one where none is."""
    reports: list[RowReport] = []
    while len(reports) < len(chunk):
        rest = chunk[len(reports) :]
        done = _taken_together(store, rest) if isinstance(store, PreferenceStore) else {}
        # the next one is known or refused; where that is soon, another try costs more than it saves
        rows = rest[: max(done) + 2] if len(done) >= FEWEST_TOGETHER else rest
        reports += [
            _report(row.line, done[place]) if place in done else _take(store, row)
            for place, row in enumerate(rows)
        ]
    return reports


def _taken_together(store: PreferenceStore, chunk: Sequence[RawRow | BadRow]) -> dict[int, Stored]:
    """Place -> what became of the first rows; nothing where one is refused: each then speaks for
    itself."""
    rows: dict[int, Mapping[str, Any]] = {}
    for place, row in enumerate(chunk):
        if isinstance(row, RawRow):
            with suppress(Refused):
                rows[place] = parse_json(row)
    try:
        with transaction.atomic():
            return store.together(rows)
    except (Refused, ConcordError, DataError, IntegrityError):
        return {}


def _report(line: int, stored: Stored) -> RowReport:
    outcome = Outcome.IMPORTED if stored.new else Outcome.ALREADY_THERE
    return RowReport(line, outcome, stored.remark, stored.caught, stored.left_out)


def _take(store: Store, row: RawRow | BadRow) -> RowReport:
    if isinstance(row, BadRow):
        return RowReport(row.line, Outcome.REFUSED, row.reason)
    try:
        try:
            stored = _stored(store, row)
        except IntegrityError:  # another import stored the same row meanwhile: now it is there
            stored = _stored(store, row)
    except (Refused, ConcordError) as problem:
        return RowReport(row.line, Outcome.REFUSED, str(problem))
    except (DataError, IntegrityError) as problem:
        reason = f"the database refused it: {clip(str(problem))}"
        return RowReport(row.line, Outcome.REFUSED, reason)
    return _report(row.line, stored)


@transaction.atomic
def _stored(store: Store, row: RawRow) -> Stored:
    return store(parse_json(row))


def _chunks(rows: Iterator[RawRow | BadRow]) -> Iterator[list[RawRow | BadRow]]:
    chunk: list[RawRow | BadRow] = []
    num_bytes = 0
    for row in rows:
        chunk.append(row)
        num_bytes += len(row.data) if isinstance(row, RawRow) else 0
        if len(chunk) >= CHUNK_ROWS or num_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes on disk. Raises BadInput if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
