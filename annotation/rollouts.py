"""What a run's policy wrote at each step, read from the files that its trainer leaves.

    jobs/<id>/attempt-N/model/texts/step-NNNNN.jsonl    while it runs, and of a run that failed
    models/<kind>-<id>/texts/step-NNNNN.jsonl           once its model is published

A file is read line by line, and only the rows of one page are held with their texts. A trainer may
be at work in the folder: a file that goes away meanwhile, or a line cut short, is left out.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from django.conf import settings

from annotation.models import TrainingJob

FOLDER = "texts"
NAME = re.compile(r"step-(\d{1,9})\.jsonl")
LONGEST_LINE = 4_000_000
"""Bytes; a longer one is no trainer's."""
MOST_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Line:
    """Where a row stands in its file, and what it may be chosen and sorted by."""

    at: int
    score: float
    kl_nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer with its scores."""

    prompt_id: str
    prompt: list[dict[str, str]]
    """Messages, the last one the user's."""
    text: str
    score: float
    baseline: float
    """Mean score of the reference's answers; 0 where the run asked for none."""
    kl_nats: float
    tokens: int
    finish: str
    figures: Mapping[str, Any]
    """Parts of the score, and what else is known of the answer."""

    @property
    def gain(self) -> float:
        """Score over the reference's."""
        return self.score - self.baseline


def folder_of(job: TrainingJob) -> Path | None:
    """Where the newest texts of a job lie; None where there are none."""
    artifacts = Path(settings.ARTIFACTS_DIR)
    attempts = [
        artifacts / "jobs" / str(job.pk) / f"attempt-{number}" / "model"
        for number in range(job.attempt, 0, -1)
    ]
    folders = [artifacts / "models" / f"{job.kind}-{job.pk}", *attempts]
    return next((one / FOLDER for one in folders if (one / FOLDER).is_dir()), None)


def steps_in(folder: Path) -> list[int]:
    """The steps that have a file, in order."""
    found: list[int] = []
    with suppress(FileNotFoundError):  # published, and so renamed, just now
        found = [int(name[1]) for path in folder.iterdir() if (name := NAME.fullmatch(path.name))]
    return sorted(found)


def file_of(folder: Path, step: int) -> Path:
    """A step's file, there or not."""
    return folder / f"step-{step:05d}.jsonl"


def lines_of(path: Path) -> list[Line]:
    """All rows of a file, without their texts."""
    found = []
    for at, row in _rows(path):
        score, kl_nats, tokens = row.get("score"), row.get("kl"), row.get("tokens")
        if _is_number(score) and _is_number(kl_nats) and isinstance(tokens, int):
            found.append(Line(at, score, kl_nats, tokens))
    return found


def num_answers(path: Path) -> int:
    """How many the step had, kept or not; 0 where the file doesn't say."""
    row = next((row for _, row in _rows(path)), {})
    return of if isinstance(of := row.get("of"), int) else 0


def rollouts_at(path: Path, lines: list[Line]) -> list[Rollout]:
    """The rows that stand there, in the order given."""
    found = []
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in lines:
            file.seek(line.at)
            if row := _read(file.readline(LONGEST_LINE)):
                found.append(_rollout(row, line))
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset, row) of each whole line."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for _ in range(MOST_LINES):
            at = file.tell()
            raw = file.readline(LONGEST_LINE)
            if not raw:
                return
            if row := _read(raw):
                yield at, row


def _read(raw: bytes) -> dict[str, Any]:
    """A line as an object; empty for one that is none."""
    with suppress(ValueError, RecursionError):
        row = json.loads(raw)
        if isinstance(row, dict):
            return row
    return {}


def _rollout(row: Mapping[str, Any], line: Line) -> Rollout:
    baseline = row.get("baseline")
    prompt = row.get("prompt")
    named = {
        name: value
        for part in ("parts", "seen")
        if isinstance(row.get(part), dict)
        for name, value in row[part].items()
    }
    return Rollout(
        prompt_id=str(row.get("prompt_id", "")),
        prompt=[
            {"role": str(turn.get("role", "")), "content": str(turn.get("content", ""))}
            for turn in (prompt if isinstance(prompt, list) else [])
            if isinstance(turn, dict)
        ],
        text=str(row.get("text", "")),
        score=line.score,
        baseline=baseline if _is_number(baseline) else 0.0,
        kl_nats=line.kl_nats,
        tokens=line.tokens,
        finish=str(row.get("finish", "")),
        figures=named,
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
