"""Checked rows into the ledger: in chunks, a savepoint per row, every row accounted for.

Who judged is an annotator outside this installation, named "SOURCE:ID", or "SOURCE" where the file
names nobody. Rows are recognised by content and external id, so a second import adds nothing.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import DataError, IntegrityError, transaction

from annotation.errors import BadInput, ConcordError
from annotation.importers import (
    argilla,
    comparisons,
    demonstrations,
    helpsteer2,
    hh_rlhf,
    label_studio,
    lmarena,
    oasst_trees,
    oasst_zh,
    prompts,
    rewardbench,
    table,
    trl,
    ultrafeedback,
    unpaired,
)
from annotation.importers.csv_rows import beginning_of, header_of, is_table, read_table
from annotation.importers.lines import BadRow, RawRow, Rows, read_rows
from annotation.importers.parquet import is_parquet, read_parquet
from annotation.importers.rows import (
    ComparisonRow,
    DemonstrationRow,
    PromptRow,
    Refused,
    VoteRow,
    clip,
    parse_json,
)
from annotation.importers.together import store_new
from annotation.importers.votes import Answer, annotator_name, is_there, store_answer, who_answers
from annotation.leaks import ALIKE, LEAK, fault_of
from annotation.models import (
    Batch,
    Origin,
    Project,
    Prompt,
    Source,
    User,
)
from annotation.services.audit import record
from annotation.services.batches import HIGHEST_PRIORITY
from annotation.services.disagreements import look_again
from annotation.services.ledger import (
    add_completion,
    add_imported_completions,
    add_prompt,
    batch_for,
    open_comparison,
    record_generation,
)
from annotation.services.outside import digest_of, forgotten_digests
from annotation.services.projects import lock_project

CHUNK_ROWS = 100
FEWEST_TOGETHER = 10
CHUNK_BYTES = 4_000_000
"""A chunk ends at whichever comes first. It is one transaction: others wait for it on SQLite."""
Parse = Callable[[Mapping[str, Any]], ComparisonRow | list[ComparisonRow]]
ASKING: Mapping[str, Callable[..., ComparisonRow]] = {
    "argilla": argilla.parse,
    "label-studio": label_studio.parse,
}
"""Formats that leave open which of their fields is the question; the caller may name it."""
UNPAIRED = "unpaired"
PREFERENCE_FORMATS: Mapping[str, Parse] = {
    "hh-rlhf": hh_rlhf.parse,
    "trl": trl.parse,
    UNPAIRED: unpaired.parse,
    "comparisons": comparisons.parse,
    "oasst-zh": oasst_zh.parse,
    "oasst-trees": oasst_trees.parse,
    "helpsteer2": helpsteer2.parse,
    "ultrafeedback": ultrafeedback.parse,
    "lmarena": lmarena.parse,
    "rewardbench": rewardbench.parse,
    **ASKING,
}
TABLE = "csv"
"""The format whose columns the caller explains (importers/table.py)."""

MOST_FIELDS = 100
"""Names of fields that are counted: a file may well make up a new one for every row."""

OF_FORGOTTEN = "votes of people whose data was deleted"
"""Counted among the fields that are not kept."""

NOT_TO_BE_SHOWN = {
    LEAK: "a completion names its maker",
    ALIKE: "two completions are near-identical",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a row came to: whether it held anything new, and what was decided otherwise than it
    says."""

    new: bool
    remark: str = ""
    caught: str = ""
    """leaks.LEAK or ALIKE: what a labeler here would not have been shown."""
    left_out: tuple[str, ...] = ()
    """Fields of the row that are not kept."""


Store = Callable[[Mapping[str, Any]], Stored]
"""Takes a row."""


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


def _taken_together(
    store: "PreferenceStore", chunk: Sequence[RawRow | BadRow]
) -> dict[int, Stored]:
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


@transaction.atomic
def source_for(*, project: Project, name: str, licence: str = "", terms: str = "") -> Source:
    """The project's source of this name, made at the first call.

    Raises BadInput where it exists with another licence: terms are not changed in passing. A colon
    is refused: annotator "c" of "a:b" would be annotator "b:c" of "a".
    """
    if not name.strip() or len(name) > 120:
        raise BadInput(f"A source needs a name of 1 to 120 characters: {clip(name)}.")
    if ":" in name:
        raise BadInput(f"A source's name has no colon: {clip(name)}.")
    if len(licence) > 80:
        raise BadInput(f"A licence has at most 80 characters: {clip(licence)}.")
    source, created = Source.objects.get_or_create(
        project=project, name=name, defaults={"licence": licence, "terms": terms}
    )
    if not created and licence and licence != source.licence:
        if source.licence:
            raise BadInput(
                f"Source {name!r} has the licence {source.licence!r} already, not {licence!r}."
            )
        source.licence = licence
        source.save(update_fields=["licence"])
        record(action="source.licence", target=source, project=project, licence=licence)
    return source


def preference_store(
    *,
    project: Project,
    source: Source,
    format: str,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
) -> Store:
    """What takes a row of a preference format into the project.

    columns, values: as require_columns took them. Call it in the transaction of what it takes.
    """
    lock_project(project)  # nobody's data is deleted until these rows are committed
    batch = batch_for(
        project=project,
        name=f"import {source.name}"[:120],
        source=source,
        review_below=0.0,  # who was asked elsewhere goes to no reviewer here, unless a lead says so
    )
    parse = parse_of(format, columns or {}, values or {})
    return PreferenceStore(batch, parse, forgotten_digests(project))


@dataclass(frozen=True, slots=True)
class PreferenceStore:
    """Takes rows of a preference format: one, or many at once."""

    batch: Batch
    parse: Parse
    forgotten: frozenset[str] = frozenset()
    """Digests of people whose data was deleted: their votes are left out."""

    def __call__(self, row: Mapping[str, Any]) -> Stored:
        return _together([store_comparison(self.batch, one) for one in self._parsed(row)])

    def together(self, rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Stored]:
        """What became of the first of these rows, by their place, up to one whose comparison is
        known. Raises what storing one of them alone would: then nothing is stored."""
        parsed: dict[int, list[ComparisonRow]] = {}
        for place, row in rows.items():
            with suppress(Refused):  # told when it is taken by itself
                parsed[place] = self._parsed(row)
        kept = store_new(self.batch, list(parsed.values()))
        return {
            place: _together(
                [
                    _stored_of(self.batch.project, one, prompt, new=True)
                    for one, prompt in zip(parsed[place], prompts, strict=True)
                ]
            )
            for place, prompts in zip(parsed, kept, strict=False)
        }

    def _parsed(self, row: Mapping[str, Any]) -> list[ComparisonRow]:
        found = self.parse(row)
        return self._without_forgotten(found if isinstance(found, list) else [found])

    def _without_forgotten(self, rows: list[ComparisonRow]) -> list[ComparisonRow]:
        """Raises Refused where no vote of them is left."""
        if not self.forgotten:
            return rows
        kept = []
        for row in rows:
            votes = [vote for vote in row.votes if not self._is_forgotten(vote)]
            if len(votes) == len(row.votes):
                kept.append(row)
            elif votes:
                kept.append(replace(row, votes=votes, left_out=[*row.left_out, OF_FORGOTTEN]))
        if rows and not kept:
            raise Refused("nothing is left of it: whoever voted had their data deleted here")
        return kept

    def _is_forgotten(self, vote: VoteRow) -> bool:
        return digest_of(vote.kind, annotator_name(self.batch, vote)) in self.forgotten


def parse_of(format: str, columns: Mapping[str, str], values: Mapping[str, str]) -> Parse:
    """The parser of a preference format. columns, values: as require_columns took them."""
    if format == TABLE:
        return table.parser(columns, values)
    if "prompt" in columns:
        return partial(ASKING[format], asked=columns["prompt"])
    return PREFERENCE_FORMATS[format]


def _together(stored: list[Stored]) -> Stored:
    """What a row of several comparisons came to."""
    return Stored(
        any(one.new for one in stored),
        next(filter(None, (one.remark for one in stored)), ""),
        next(filter(None, (one.caught for one in stored)), ""),
        tuple(name for one in stored for name in one.left_out),
    )


def require_columns(
    path: Path,
    format: str,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    *,
    from_beginning: bool = False,
) -> None:
    """Raise BadInput unless the file's columns can mean that, and its winners are understood.

    from_beginning: look at the first rows alone; one further down whose winner isn't understood is
    refused by itself.

    columns: what each stands for -> its name, of a table; of a format of ASKING `prompt` alone, the
    field with the question. values: what a winner's cell says -> one of table.MEANINGS.
    """
    if format != TABLE:
        if values or not set(columns) <= ({"prompt"} if format in ASKING else set()):
            more = ", prompt= also what is asked in argilla and label-studio"
            raise BadInput(f"--columns and --values explain a csv{more}: not {format}.")
        return
    if not is_table(path):
        raise BadInput(f"{path.name} is no table: its name ends with .csv or .tsv.")
    table.require_mapping(columns, header_of(path))
    table.require_values(columns, values)
    if "winner" in columns:
        some = beginning_of(path) if from_beginning else read_table(path)
        rows = (json.loads(row.data) for row in some if isinstance(row, RawRow))
        cells = (str(row[columns["winner"]]) for row in rows)
        table.require_told(path.name, cells, columns, values)


def question_store(
    *, project: Project, source: Source, batch: str, answers_wanted: int, skill: str, priority: int
) -> Store:
    """What takes a row of completions without votes into a batch that labelers are handed.

    skill, priority: of the batch, if it is made now. Raises BadInput.
    """
    if answers_wanted < 1:
        raise BadInput(f"A comparison wants one answer or more: {answers_wanted}.")
    if abs(priority) > HIGHEST_PRIORITY:
        highest = HIGHEST_PRIORITY
        raise BadInput(f"A priority is from {-highest} to {highest}: {priority}.")
    if len(skill) > 40:
        raise BadInput(f"A skill has at most 40 characters: {clip(skill)}.")
    into = batch_for(project=project, name=batch, source=source, skill=skill, priority=priority)
    return lambda row: open_question(into, comparisons.parse_unanswered(row), answers_wanted)


def prompt_store(*, project: Project, source: Source) -> Store:
    """What takes a prompts row into the project."""

    def store(row: Mapping[str, Any]) -> Stored:
        parsed = prompts.parse(row)
        prompt, created = _prompt(project, source, parsed)
        return Stored(created, _split_remark(parsed, prompt))

    return store


def demonstration_store(*, project: Project, source: Source) -> Store:
    """What takes a demonstrations row into the project."""
    return lambda row: store_demonstration(project, source, demonstrations.parse(row))


def store_demonstration(project: Project, source: Source, row: DemonstrationRow) -> Stored:
    """Keep an ideal answer."""
    prompt, _ = _prompt(project, source, row.prompt)
    completion, _ = add_completion(prompt=prompt, source=source, text=row.completion.text)
    _, created = record_generation(
        completion=completion, origin=Origin.DEMONSTRATION, writer=row.completion.writer
    )
    return Stored(created, _split_remark(row.prompt, prompt))


def store_comparison(batch: Batch, row: ComparisonRow) -> Stored:
    """Keep a comparison and its votes.

    It wants no answer and holds no slot: the queue never hands it out. Raises Refused for a vote
    that contradicts one of the same annotator.
    """
    prompt, _ = _prompt(batch.project, batch.source, row.prompt)
    completions = add_imported_completions(
        prompt=prompt,
        source=batch.source,
        written=[(each.text, each.writer) for each in row.completions],
    )
    comparison, created = open_comparison(
        batch=batch, prompt=prompt, completions=completions, answers_wanted=0
    )
    new = False
    for vote in row.votes:
        annotator, said = who_answers(batch, vote), Answer.of(completions, vote)
        if created or not is_there(comparison, annotator, said):
            store_answer(batch, comparison, annotator, said, vote.external_id)
            new = True
    if new and (len(row.votes) > 1 or not created):
        look_again(comparison.pk)
    return _stored_of(batch.project, row, prompt, new=new)


def _stored_of(project: Project, row: ComparisonRow, prompt: Prompt, *, new: bool) -> Stored:
    texts = [completion.text for completion in row.completions]
    return Stored(
        new, _split_remark(row.prompt, prompt), _caught(project, texts), tuple(row.left_out)
    )


def open_question(batch: Batch, row: ComparisonRow, answers_wanted: int) -> Stored:
    """Put a prompt with its completions into the queue, once per batch.

    Raises Refused for what no labeler here may be shown; see annotation/leaks.py.
    """
    if fault := _caught(batch.project, [completion.text for completion in row.completions]):
        raise Refused(NOT_TO_BE_SHOWN[fault])
    prompt, _ = _prompt(batch.project, batch.source, row.prompt)
    completions = add_imported_completions(
        prompt=prompt,
        source=batch.source,
        written=[(each.text, each.writer) for each in row.completions],
    )
    _, created = open_comparison(
        batch=batch, prompt=prompt, completions=completions, answers_wanted=answers_wanted
    )
    remark = _split_remark(row.prompt, prompt)
    return Stored(created, remark, left_out=tuple(row.left_out))


def _caught(project: Project, texts: list[str]) -> str:
    """The first fault of the completions that the project looks for: they were voted on elsewhere
    and are kept, but counted."""
    looked_for = {"leaks": project.catch_leaks, "likeness": project.catch_alike}
    faults = (fault_of(text, texts[:place], **looked_for) for place, text in enumerate(texts))
    return next(filter(None, faults), "")


def _split_remark(row: PromptRow, prompt: Prompt) -> str:
    if row.split in (None, prompt.split):
        return ""
    return f"in split {prompt.split!r}, where its group is, not in {row.split!r}"


def _prompt(project: Project, source: Source, row: PromptRow) -> tuple[Prompt, bool]:
    return add_prompt(
        project=project,
        source=source,
        messages=row.messages,
        task=row.task,
        language=row.language,
        metadata=row.metadata,
        external_id=row.external_id,
        split_group=row.group,
        split=row.split,
    )
