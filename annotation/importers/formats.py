"""What a file may be taken for, and which of these fit one: its format, its columns, a sample.

A format brings its parser and its way into the ledger together, so that whoever looks at a file
first and whoever imports it read it by the same code.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from annotation.errors import BadInput
from annotation.importers import comparisons, demonstrations, prompts, table, unpaired
from annotation.importers.csv_rows import beginning_of, header_of, is_table
from annotation.importers.lines import RawRow
from annotation.importers.load import read_any
from annotation.importers.parsers import (
    PREFERENCE_FORMATS,
    TABLE,
    UNPAIRED,
    parse_of,
    require_columns,
)
from annotation.importers.rows import (
    ComparisonRow,
    DemonstrationRow,
    PromptRow,
    Refused,
    clip,
    parse_json,
)
from annotation.importers.stores import (
    Store,
    demonstration_store,
    preference_store,
    prompt_store,
    question_store,
)
from annotation.models import Project, Source

QUESTIONS, PROMPTS, DEMONSTRATIONS = "questions", "prompts", "demonstrations"
WITHOUT_VOTES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    DEMONSTRATIONS: demonstrations.parse,
    QUESTIONS: comparisons.parse_unanswered,
    PROMPTS: prompts.parse,
}
"""In the order in which a row is tried: every comparison and demonstration holds a prompt too."""
FORMATS = (*PREFERENCE_FORMATS, TABLE, *WITHOUT_VOTES)
SOURCE_OF = {QUESTIONS: "comparisons"}
"""The name of a source where none is given, if it is not that of the format."""

ROWS_TRIED = 20
CELLS_SHOWN = 3
CELL_WIDTH = 60
MOST_VALUES = 12
"""Of a winner's column: with more it holds something else."""
USUAL_NAMES = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "context", "post"),
    "chosen": ("chosen", "preferred", "better", "winner_text", "accepted"),
    "rejected": ("rejected", "dispreferred", "worse", "loser_text"),
    "first": ("first", "a", "response_a", "answer_a", "completion_a", "response_1", "answer_1"),
    "second": ("second", "b", "response_b", "answer_b", "completion_b", "response_2", "answer_2"),
    "winner": ("winner", "verdict", "preference", "choice", "label", "vote"),
    "annotator": ("annotator", "worker", "worker_id", "rater", "judge", "user"),
    "id": ("id", "example_id", "uid", "row_id"),
    "group": ("group", "thread", "conversation_id"),
    "language": ("language", "lang"),
    "split": ("split",),
    "task": ("task", "category"),
    "first_model": ("first_model", "model_a", "model_1"),
    "second_model": ("second_model", "model_b", "model_2"),
}
"""What a table's columns are called elsewhere, in lower case: a guess that a person looks at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a file is taken for. columns, values: as parsers.require_columns takes them; the last
    two are of questions alone."""

    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    batch: str = "imported"
    answers_wanted: int = 1

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise BadInput(f"A file's format is one of {', '.join(FORMATS)}: not {self.format!r}.")

    def require_fit(self, path: Path) -> None:
        """Raise BadInput unless the file's columns can mean what is said of them, by its first
        rows: somebody waits for it, and the file may be long."""
        if self.format in WITHOUT_VOTES:
            if self.columns or self.values:
                raise BadInput(f"Columns explain a csv: not {self.format}.")
            return
        require_columns(path, self.format, self.columns, self.values, from_beginning=True)

    def require_columns(self, path: Path) -> None:
        """Raise BadInput unless a table has the columns that are named."""
        table.require_mapping(self.columns, header_of(path))

    def parse(self) -> Callable[[Mapping[str, Any]], Any]:
        """What makes rows of votes, questions, prompts or demonstrations of one."""
        found = WITHOUT_VOTES.get(self.format)
        return found or parse_of(self.format, self.columns, self.values)

    def store(self, project: Project, source: Source) -> Store:
        """What takes a row into the ledger."""
        if self.format == QUESTIONS:
            return question_store(
                project=project,
                source=source,
                batch=self.batch,
                answers_wanted=self.answers_wanted,
                skill="",
                priority=0,
            )
        if self.format == DEMONSTRATIONS:
            return demonstration_store(project=project, source=source)
        if self.format == PROMPTS:
            return prompt_store(project=project, source=source)
        return preference_store(
            project=project,
            source=source,
            format=self.format,
            columns=self.columns,
            values=self.values,
        )


def fitting_formats(path: Path) -> list[str]:
    """Formats that take most of the first rows, the likeliest first; a table's is csv. Those
    without votes only where none with votes fits, for they would leave the votes out.

    Raises BadInput where the file can't be opened, or holds no row at all.
    """
    if is_table(path):
        header = header_of(path)
        usual = [TABLE]
        if {"model_a", "model_b", "winner"} <= set(header):
            usual.insert(0, "lmarena")
        return usual
    rows = list(islice(_objects(path), ROWS_TRIED))
    if not rows:
        first = next(iter(read_any(path)), None)
        if first is None:
            raise BadInput(f"{path.name} is empty.")
        raise BadInput(_why_none(path))
    taken: Counter[str] = Counter()
    for name in FORMATS:
        if name == UNPAIRED:
            taken[name] = sum(map(unpaired.is_one, rows))
        elif name != TABLE:
            taken[name] = sum(_fits(Reading(format=name).parse(), row) for row in rows)
    most = [name for name in FORMATS if taken[name] * 2 > len(rows)]
    votes = [name for name in most if name not in WITHOUT_VOTES]
    return sorted(votes, key=lambda name: -taken[name]) or most[:1]


def _why_none(path: Path) -> str:
    """Of a file none of whose first rows is JSON."""
    for raw in islice(read_any(path), 1):
        if not isinstance(raw, RawRow):
            return f"{path.name}, line {raw.line}: {raw.reason}."
        try:
            parse_json(raw)
        except Refused as reason:
            return f"{path.name}, line {raw.line}: {reason}."
    return f"{path.name} holds no row that can be read."


def _fits(parse: Callable[[Mapping[str, Any]], Any], row: Mapping[str, Any]) -> bool:
    try:
        parse(row)
    except Refused:
        return False
    return True


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The first rows that are JSON objects; what is not is passed over."""
    for raw in islice(read_any(path), ROWS_TRIED * 10):
        if isinstance(raw, RawRow):
            try:
                yield parse_json(raw)
            except Refused:
                continue


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table with some of its cells."""

    name: str
    cells: list[str]


def columns_of(path: Path) -> list[Column]:
    """A table's columns with the first different cells of each. Raises BadInput."""
    found: dict[str, list[str]] = {name: [] for name in header_of(path)}
    for row in islice(_cells(path), ROWS_TRIED):
        for name, cell in row.items():
            shown = clip(cell, CELL_WIDTH).strip('"')
            if cell.strip() and shown not in found[name] and len(found[name]) < CELLS_SHOWN:
                found[name].append(shown)
    return [Column(name, cells) for name, cells in found.items()]


def usual_columns(names: Iterable[str]) -> dict[str, str]:
    """What columns of these names probably stand for: meaning -> column, each once."""
    by_name = {name.strip().lower().replace(" ", "_"): name for name in names}
    found: dict[str, str] = {}
    for meaning, usual in USUAL_NAMES.items():
        name = next((one for one in usual if one in by_name), None)
        if name is not None and by_name[name] not in found.values():
            found[meaning] = by_name[name]
    return found


def values_of(path: Path, columns: Mapping[str, str]) -> dict[str, str]:
    """What the cells of a winner's column say -> what that means, "" where it must be told.

    Of the first rows; empty where the columns name no winner, or it has too many values.
    """
    if "winner" not in columns:
        return {}
    seen = (str(row.get(columns["winner"], "")) for row in _cells(path))
    values = sorted({cell.strip() for cell in seen if cell.strip()})
    if len(values) > MOST_VALUES:
        return {}
    return {value: table.meaning_of(value, columns) for value in values}


def _cells(path: Path) -> Iterator[dict[str, str]]:
    for raw in beginning_of(path):
        if isinstance(raw, RawRow):
            yield json.loads(raw.data)


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as it would be stored, in a few words."""

    line: int
    prompt: str
    texts: list[tuple[str, str]]
    """Each with what is said of it: its place in the ranking, or ""."""


def shown_of(line: int, parsed: Any) -> list[Shown]:
    """A parsed row for people to look at; some hold several comparisons."""
    if isinstance(parsed, list):
        return [one for each in parsed for one in shown_of(line, each)]
    if isinstance(parsed, PromptRow):
        return [Shown(line, _last(parsed), [])]
    if isinstance(parsed, DemonstrationRow):
        return [Shown(line, _last(parsed.prompt), [("", clip_text(parsed.completion.text))])]
    places = _places(parsed)
    texts = [
        (places.get(place, ""), clip_text(one.text)) for place, one in enumerate(parsed.completions)
    ]
    return [Shown(line, _last(parsed.prompt), texts)]


def _places(row: ComparisonRow) -> dict[int, str]:
    """Of the first vote: which completion stands where, "1" the best."""
    if not row.votes:
        return {}
    ranking = row.votes[0].rankings[0]
    if len(ranking.groups) < 2:
        return dict.fromkeys(range(len(row.completions)), ranking.outcome)
    return {
        place: str(number)
        for number, group in enumerate(ranking.groups, start=1)
        for place in group
    }


def _last(prompt: PromptRow) -> str:
    return clip_text(prompt.messages[-1]["content"])


def clip_text(text: str, most: int = 140) -> str:
    """The beginning of a text as one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
