"""Anchors: fixed texts on which every reward model of a project has mean 0 and deviation 1.

    python -m rewardmodel anchors --data comparisons.jsonl --out anchors.jsonl

freezes a set; `train --anchors FILE` then uses it in every round. A set is known by its hash, which
depends on what the texts are and not on their order or ids.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.comparisons import Comparison, parse_row, read_comparisons
from policy.config import BadInput, require
from policy.data import Message, checked_messages, numbered_rows
from policy.files import appearing
from policy.rows import clip, parse_string

NUM_ANCHORS = 256
FEWEST_OF_DEV = 64
"""With fewer texts on dev the train rows are drawn from too."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One answer to one prompt."""

    prompt: tuple[Message, ...]
    text: str

    @property
    def sha256(self) -> str:
        turns = [[message["role"], message["content"]] for message in self.prompt]
        said = json.dumps([turns, self.text], ensure_ascii=False)
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Anchors:
    """Different answers, in the order of their hashes."""

    items: tuple[Anchor, ...]

    @classmethod
    def of(cls, anchors: Iterable[Anchor], *, most: int | None = None) -> "Anchors":
        """Each once; at most `most`, those whose hashes are the smallest: a draw that depends on
        nothing but the texts, and that a few more rows hardly change."""
        found: dict[str, Anchor] = {}
        for anchor in anchors:
            found[anchor.sha256] = anchor
            if most is not None and len(found) > 4 * most + 1024:
                found = {key: found[key] for key in sorted(found)[:most]}
        return cls(tuple(found[key] for key in sorted(found)[:most]))

    @property
    def sha256(self) -> str:
        """Of the set: the hash of its texts' hashes."""
        keys = "\n".join(anchor.sha256 for anchor in self.items)
        return hashlib.sha256(keys.encode()).hexdigest()


def sample_anchors(data: Path, count: int = NUM_ANCHORS) -> Anchors:
    """A fixed sample of the dev rows of a comparisons or TRL file, with the train rows where dev
    holds fewer than FEWEST_OF_DEV texts; test rows are never looked at."""
    return anchors_among(lambda: read_comparisons(data), count)


def anchors_among(rows: Callable[[], Iterable[Comparison]], count: int = NUM_ANCHORS) -> Anchors:
    """`sample_anchors` of rows; they may be asked for twice."""
    dev = Anchors.of(_texts(rows(), "dev"), most=count)
    if len(dev.items) >= min(count, FEWEST_OF_DEV):
        return dev
    train = Anchors.of(_texts(rows(), "train"), most=count)
    return Anchors.of([*dev.items, *train.items], most=count)


def _texts(rows: Iterable[Comparison], split: str) -> Iterator[Anchor]:
    for comparison in rows:
        if comparison.in_split(split):
            yield from _of_comparison(comparison)


def _of_comparison(comparison: Comparison) -> Iterator[Anchor]:
    for text in comparison.texts:
        yield Anchor(comparison.prompt, text)


def read_anchors(path: Path) -> Anchors:
    """Rows {prompt, text or completion}, or comparisons or TRL rows, whose votes are not looked at.

    Raises BadInput with file and line, or for a file with fewer than two texts.
    """
    require(path.is_file(), f"there is no file {path}")
    anchors = Anchors.of(_rows(path))
    require(len(anchors.items) >= 2, f"{path} holds {len(anchors.items)} anchors, two are needed")
    return anchors


def _rows(path: Path) -> Iterator[Anchor]:
    for line, row in numbered_rows(path):
        try:
            yield from _anchors_of(row, line)
        except BadInput as problem:
            raise BadInput(f"{path} line {line}: {problem}") from problem


def _anchors_of(row: Mapping[str, Any], line: int) -> Iterator[Anchor]:
    if "completions" in row or "chosen" in row:
        yield from _of_comparison(parse_row(row, line=line))
        return
    require("prompt" in row, f"the row lacks prompt: {clip(row)}")
    require("completion" in row or "text" in row, f"the row lacks text: {clip(row)}")
    text = parse_string(row.get("text", row.get("completion")), "text")
    yield Anchor(tuple(checked_messages(row["prompt"], "prompt")), text)


def write_anchors(anchors: Anchors, path: Path) -> None:
    """One row {id, prompt, text} each, the id being its hash; the file appears when it is whole."""
    with appearing(path) as file:
        for anchor in anchors.items:
            row = {"id": anchor.sha256, "prompt": list(anchor.prompt), "text": anchor.text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="comparisons or TRL rows, JSONL")
    parser.add_argument("--out", type=Path, required=True, help="JSONL {id, prompt, text}")
    parser.add_argument("--count", type=int, default=NUM_ANCHORS, help="texts, 256 by default")


def run_command(args: argparse.Namespace) -> int:
    require(args.data.is_file(), f"there is no file {args.data}")
    require(args.count >= 2, f"--count must be >= 2: {args.count}")
    anchors = sample_anchors(args.data, args.count)
    require(len(anchors.items) >= 2, f"{args.data} holds no train or dev text to draw from")
    write_anchors(anchors, args.out)
    sys.stderr.write(f"{len(anchors.items)} anchors, sha256 {anchors.sha256}\n")
    return 0
