"""Scores of completions in a file, one line each, in bounded memory."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from policy.comparisons import parse_row
from policy.config import BadInput, require, require_precision
from policy.data import Message, checked_messages, numbered_rows
from policy.ensemble import Scored
from policy.files import appearing, num_lines
from policy.rows import clip, parse_string, require_keys
from policy.run import device_from
from policy.scoring import Scorer, TooLong, load_scorer

ROWS_AT_ONCE = 1024
"""Read, sorted by length and scored together: bounds memory, saves padding."""


@dataclass
class Told:
    """What a file held and what became of it."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Rows by what they are."""
    num_scored: int = 0
    num_too_long: int = 0


class Item(NamedTuple):
    """One completion to be scored; `labels` are the keys its output line begins with."""

    labels: dict[str, Any]
    prompt: list[Message]
    text: str


SINGLE, COMPARISON, PAIR, THUMB = (
    "completions",
    "comparisons",
    "pairs of chosen and rejected",
    "labelled completions",
)
"""What a row can be, as it is told."""


def read_items(path: Path, kinds: Counter[str]) -> Iterator[tuple[int, Item]]:
    """(line, completion) of rows {id, prompt, completion or text}, comparisons, TRL's and
    RewardBench's.

    The completions of a comparison come as {id of the completion, comparison: id of the row}; a
    row of TRL's or RewardBench's without an id is `line-N`, its completions are `chosen` and
    `rejected`. Votes and labels are not looked at. kinds: counts the rows by what they are. Raises
    BadInput with file and line.
    """
    for line, row in numbered_rows(path):
        try:
            kind = _kind(row)
            for item in _items(row, kind, line):
                yield line, item
        except BadInput as problem:
            raise BadInput(f"{path} line {line}: {problem}") from problem
        kinds[kind] += 1


def _kind(row: Mapping[str, Any]) -> str:
    if "chosen" in row or "rejected" in row:
        return PAIR
    if "completions" in row:
        return COMPARISON
    return THUMB if "completion" in row and "label" in row else SINGLE


def _items(row: Mapping[str, Any], kind: str, line: int) -> Iterator[Item]:
    if kind in (PAIR, THUMB):  # as evaluate reads them
        comparison = parse_row(row, line=line)
        for name, text in zip(comparison.completion_ids, comparison.texts, strict=True):
            labels = {"id": name, "comparison": comparison.id} if kind == PAIR else {}
            yield Item(labels or {"id": comparison.id}, list(comparison.prompt), text)
        return
    require_keys(row, ("id", "prompt"), "the row")
    prompt = checked_messages(row["prompt"], "prompt")
    if kind == COMPARISON:
        require(
            isinstance(row["completions"], list),
            f"completions must be a list: {clip(row['completions'])}",
        )
        for completion in row["completions"]:
            require_keys(completion, ("id", "text"), "a completion")
            text = parse_string(completion["text"], "a completion's text")
            yield Item({"id": completion["id"], "comparison": row["id"]}, prompt, text)
        return
    require("completion" in row or "text" in row, f"the row lacks completion or text: {clip(row)}")
    text = parse_string(row.get("completion", row.get("text")), "completion")
    yield Item({"id": row["id"]}, prompt, text)


def score_file(scorer: Scorer, data: Path, out: Path) -> Told:
    """Write {id, score} lines to out, which appears when it is whole; of an ensemble {id, score,
    spread, members}, of several axes axes: {name: standardised} too.

    A completion that is too long for the model has score null and says why, so that one of them
    does not hold up the rest.
    """
    num_rows = num_lines(data)
    told = Told()
    with (
        appearing(out) as file,
        tqdm(total=num_rows, desc="score", disable=not sys.stderr.isatty()) as bar,
    ):
        window: list[Item] = []
        for line, item in read_items(data, told.kinds):
            window.append(item)
            if len(window) >= ROWS_AT_ONCE:
                _write(scorer, window, file, told)
                window = []
                bar.update(line - bar.n)
        _write(scorer, window, file, told)
        require(told.num_scored + told.num_too_long > 0, f"{data} holds no completion")
        bar.update(num_rows - bar.n)
    return told


def _write(scorer: Scorer, window: Sequence[Item], file: TextIO, told: Told) -> None:
    rows: list[list[int]] = []
    problems: list[str | None] = []
    for item in window:
        try:
            rows.append(scorer.encode(item.prompt, item.text).ids)
            problems.append(None)
        except TooLong as refusal:
            problems.append(str(refusal))
    scores = iter(scorer.scored_ids(rows))
    names = [axis.name for axis in scorer.scale.axes]
    for item, problem in zip(window, problems, strict=True):
        found = (
            _found(next(scores), names) if problem is None else {"score": None, "problem": problem}
        )
        told.num_scored += problem is None
        told.num_too_long += problem is not None
        file.write(json.dumps({**item.labels, **found}, ensure_ascii=False) + "\n")


def _found(scored: Scored, axes: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"score": scored.score}
    if scored.spread is not None:
        found |= {"spread": scored.spread, "members": scored.members}
    if axes:
        found["axes"] = dict(zip(axes, scored.axes, strict=True))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="reward-model directory")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="JSONL rows {id, prompt, completion or text}, comparisons, or TRL's or RewardBench's",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSONL {id, score ...}")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto by default")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, by default: scores depend on nothing but their text; bf16: several times "
        "faster, rounded to some hundredths; auto: bf16 where the device has it",
    )


def run_command(args: argparse.Namespace) -> int:
    require(args.data.is_file(), f"there is no file {args.data}")
    require_precision(args.precision)
    scorer = load_scorer(args.model, device_from(args.device), precision=args.precision)
    told = score_file(scorer, args.data, args.out)
    rows = ", ".join(f"{count} {kind}" for kind, count in told.kinds.items())
    note = f", {told.num_too_long} too long for the model" if told.num_too_long else ""
    sys.stderr.write(f"{args.data.name} holds {rows}\n")
    sys.stderr.write(f"{told.num_scored} completions scored{note}\n")
    return 0
