"""Scores of completions in a file, one line each, in bounded memory."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from policy.config import BadInput, require
from policy.data import Message, checked_messages, numbered_rows
from policy.ensemble import Scored
from policy.run import device_from
from policy.scoring import Scorer, TooLong, load_scorer
from rewardmodel.files import appearing, num_lines
from rewardmodel.rows import clip, parse_string, require_keys

ROWS_AT_ONCE = 1024
"""Read, sorted by length and scored together: bounds memory, saves padding."""


class Item(NamedTuple):
    """One completion to be scored; `labels` are the keys its output line begins with."""

    labels: dict[str, Any]
    prompt: list[Message]
    text: str


def read_items(path: Path) -> Iterator[tuple[int, Item]]:
    """(line, completion) of rows {id, prompt, completion or text}, or of comparisons rows.

    The completions of a comparison come as {id of the completion, comparison: id of the row}; its
    votes are not looked at. Raises BadInput with file and line.
    """
    for line, row in numbered_rows(path):
        try:
            for item in _items(row):
                yield line, item
        except BadInput as problem:
            raise BadInput(f"{path} line {line}: {problem}") from problem


def _items(row: dict[str, Any]) -> Iterator[Item]:
    require_keys(row, ("id", "prompt"), "the row")
    prompt = checked_messages(row["prompt"], "prompt")
    if "completions" in row:
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


def score_file(scorer: Scorer, data: Path, out: Path) -> tuple[int, int]:
    """Write {id, score} lines to out, which appears when it is whole; of an ensemble {id, score,
    spread, members}.

    A completion that is too long for the model has score null and says why, so that one of them
    does not hold up the rest. Returns how many were scored and how many were not.
    """
    num_rows = num_lines(data)
    counts = {"scored": 0, "too_long": 0}
    with (
        appearing(out) as file,
        tqdm(total=num_rows, desc="score", disable=not sys.stderr.isatty()) as bar,
    ):
        window: list[Item] = []
        for line, item in read_items(data):
            window.append(item)
            if len(window) >= ROWS_AT_ONCE:
                _write(scorer, window, file, counts)
                window = []
                bar.update(line - bar.n)
        _write(scorer, window, file, counts)
        require(any(counts.values()), f"{data} holds no completion")
        bar.update(num_rows - bar.n)
    return counts["scored"], counts["too_long"]


def _write(scorer: Scorer, window: Sequence[Item], file: TextIO, counts: dict[str, int]) -> None:
    rows: list[list[int]] = []
    problems: list[str | None] = []
    for item in window:
        try:
            rows.append(scorer.encode(item.prompt, item.text).ids)
            problems.append(None)
        except TooLong as refusal:
            problems.append(str(refusal))
    scores = iter(scorer.scored_ids(rows))
    for item, problem in zip(window, problems, strict=True):
        found = _found(next(scores)) if problem is None else {"score": None, "problem": problem}
        counts["scored" if problem is None else "too_long"] += 1
        file.write(json.dumps({**item.labels, **found}, ensure_ascii=False) + "\n")


def _found(scored: Scored) -> dict[str, Any]:
    if scored.spread is None:
        return {"score": scored.score}
    return {"score": scored.score, "spread": scored.spread, "members": scored.members}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="reward-model directory")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="JSONL rows {id, prompt, completion or text}, or comparisons rows",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSONL {id, score ...}")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto by default")


def run_command(args: argparse.Namespace) -> int:
    require(args.data.is_file(), f"there is no file {args.data}")
    scorer = load_scorer(args.model, device_from(args.device))
    scored, too_long = score_file(scorer, args.data, args.out)
    note = f", {too_long} too long for the model" if too_long else ""
    sys.stderr.write(f"{scored} completions scored{note}\n")
    return 0
