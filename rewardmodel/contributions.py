"""What each annotator, batch or guideline version did for dev log loss: refits without it.

    python -m rewardmodel features --model DIR --data FILE --out features.safetensors
    python -m rewardmodel contributions --model DIR --features features.safetensors --data FILE
        --out contributions.json [--labels labels.jsonl]

The head is fitted to all train votes, then again without those of one part, from the same features
and with the same ridge. A part's contribution is the mean over dev comparisons of (log loss without
it - log loss with it), in nats: above 0 it helps, below 0 the model would be better without. Both
heads are measured on the same comparisons, so the interval draws the groups of these differences.

Labels say more of votes than their rows do, one row per vote: {"preference": 12, "batch": "first",
"guideline": "3"}; without them parts are annotators alone. The trunk stays as it was trained, on
these votes too: what a part did to it is not seen. Dev keeps everybody's votes.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from policy.comparisons import Comparison, PairTable, parse_row
from policy.config import BadInput, load_config, require, require_all_positive
from policy.data import content_hash, numbered_rows
from policy.files import appearing
from policy.judgments import is_wanted
from policy.rows import clip, parse_weight
from policy.run import add_config_arguments
from rewardmodel.anchors import Anchor
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.evaluate import measure
from rewardmodel.features import Features
from rewardmodel.newton import Fitted
from rewardmodel.refit import RefitConfig, Table, choose_ridge

ANNOTATOR = "annotator"
LOSS = "bradley_terry"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContributionsConfig:
    ridge: float | None = None
    """As in `refit`: null takes what dev's log loss asks for, once for all heads."""
    axis: str | None = None
    """Only votes on this axis; null keeps all of them."""
    least_votes: int = 10
    """Strict train votes below which a part is not measured."""
    max_newton_steps: int = 100

    def __post_init__(self) -> None:
        require_all_positive(self, "least_votes", "max_newton_steps")
        require(self.ridge is None or self.ridge >= 0, f"ridge must be >= 0: {self.ridge}")


class Part(NamedTuple):
    """What is left out: (by, name), such as (guideline, 3)."""

    by: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Contribution:
    """Of one part. votes: strict ones on train; comparisons: that have some of them."""

    by: str
    name: str
    votes: int
    comparisons: int
    nats: float
    """Mean over dev of log loss without it - log loss with it."""
    low: float | None
    high: float | None
    """95 % interval; None with a single dev group."""


@dataclass(slots=True)
class Labelled:
    """A train comparison and the parts of each of its votes."""

    comparison: Comparison
    parts: list[tuple[Part, ...]]

    def without(self, part: Part) -> Comparison:
        votes = tuple(
            vote
            for vote, parts in zip(self.comparison.votes, self.parts, strict=True)
            if part not in parts
        )
        return replace(self.comparison, votes=votes, table=PairTable.of(votes))


@dataclass(slots=True)
class Rows:
    """What was read of a file of comparisons."""

    train: list[Labelled] = field(default_factory=list)
    dev: list[Comparison] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, labels: Mapping[int, Mapping[str, str]], axis: str | None) -> "Rows":
        """Raises BadInput with file and line for a row that is not what it should be."""
        found = cls()
        for line, row in numbered_rows(path):
            try:
                comparison = parse_row(row, line=line, axis=axis)
                if comparison.in_split("train"):
                    parts = [_parts(vote, labels) for vote in _kept_votes(row, axis)]
                    parts = parts or [() for _ in comparison.votes]  # a TRL row names nobody
                    found.train.append(Labelled(comparison, parts))
                elif comparison.in_split("dev"):
                    found.dev.append(comparison)
            except BadInput as problem:
                raise BadInput(f"{path} line {line}: {problem}") from problem
        return found

    def sizes(self) -> tuple[Counter[Part], dict[Part, list[int]]]:
        """Strict votes of each part, and the places of the train comparisons that have some."""
        votes: Counter[Part] = Counter()
        places: dict[Part, list[int]] = defaultdict(list)
        for place, one in enumerate(self.train):
            strict = [
                parts
                for vote, parts in zip(one.comparison.votes, one.parts, strict=True)
                if vote.strict_pairs()
            ]
            votes.update(part for parts in strict for part in parts)
            for part in {part for parts in strict for part in parts}:
                places[part].append(place)
        return votes, places


def _kept_votes(row: Mapping[str, Any], axis: str | None) -> Iterator[Mapping[str, Any]]:
    """Those that policy.comparisons keeps, in its order."""
    for vote in row.get("votes", ()):
        if parse_weight(vote["weight"], "weight of a vote") > 0 and is_wanted(vote["axis"], axis):
            yield vote


def _parts(vote: Mapping[str, Any], labels: Mapping[int, Mapping[str, str]]) -> tuple[Part, ...]:
    if "preference" not in vote and "decision" in vote:
        return ()  # a reviewer's word in the place of votes is nobody's vote
    found = [] if vote["annotator"] is None else [Part(ANNOTATOR, str(vote["annotator"]))]
    more = labels.get(vote.get("preference", -1), {})
    return (*found, *(Part(by, name) for by, name in more.items()))


def read_labels(path: Path) -> dict[int, dict[str, str]]:
    """Preference -> by -> name. Raises BadInput with file and line."""
    labels: dict[int, dict[str, str]] = {}
    for line, row in numbered_rows(path):
        number = row.get("preference")
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadInput(f"{path} line {line}: preference must be a whole number: {clip(number)}")
        names = {by: name for by, name in row.items() if by != "preference"}
        for by, name in names.items():
            require(
                isinstance(name, str) and by != ANNOTATOR,
                f"{path} line {line}: a label is a text, and no annotator: {clip({by: name})}",
            )
        labels[number] = names
    return labels


@dataclass(frozen=True, slots=True)
class DevLoss:
    """Dev comparisons whose completions have features."""

    features: Tensor
    """(N, D) float64."""
    groups: list[str]
    tables: list[tuple[PairTable, list[int]]]
    """Each with the rows of its completions."""

    @classmethod
    def of(cls, dev: Iterable[Comparison], features: Features) -> "DevLoss":
        places: dict[int, int] = {}  # of the file -> of this
        groups, tables = [], []
        for comparison in dev:
            keys = [Anchor(comparison.prompt, text).sha256 for text in comparison.texts]
            kept = [index for index, key in enumerate(keys) if key in features.places]
            if len(kept) < len(keys):  # too long for the model: as in training
                comparison, keys = comparison.among(kept), [keys[index] for index in kept]
            if comparison.table.pairs:
                groups.append(comparison.group)
                rows = [places.setdefault(features.places[key], len(places)) for key in keys]
                tables.append((comparison.table, rows))
        return cls(features.rows(list(places)).double(), groups, tables)

    def losses(self, fitted: Fitted) -> list[float]:
        """Nats of each comparison, as `evaluate` measures it."""
        scores = (self.features @ fitted.head).tolist()
        return [
            measure(table, [scores[row] for row in rows]).log_loss for table, rows in self.tables
        ]


def contributions(
    config: ContributionsConfig,
    *,
    features: Features,
    data: Path,
    labels: Mapping[int, Mapping[str, str]] | None = None,
    on_part: Callable[[int, int], None] = lambda step, total: None,
) -> dict[str, Any]:
    """The contributions, the most harmful first, and what they were measured on.

    on_part: called with (refits done, refits in all). Raises BadInput without train or dev rows
    that have strict pairs and features.
    """
    rows = Rows.read(data, labels or {}, config.axis)
    dev = DevLoss.of(rows.dev, features)
    whole = [one.comparison for one in rows.train]
    train = Table.of(whole, features, LOSS, weighted=True)
    for split, count in (("train", train.num_comparisons), ("dev", len(dev.tables))):
        require(count > 0, f"{data} has no {split} comparison with a strict pair and with features")
    how = RefitConfig(ridge=config.ridge, max_newton_steps=config.max_newton_steps)
    ridge, fitted = choose_ridge(how, train, Table.of(rows.dev, features, LOSS))
    with_all = dev.losses(fitted)
    votes, places = rows.sizes()
    wanted = [part for part in sorted(votes) if votes[part] >= config.least_votes]
    found = []
    for number, part in enumerate(tqdm(wanted, desc="refits", disable=not sys.stderr.isatty())):
        on_part(number, len(wanted))
        left = list(whole)
        for place in places[part]:
            left[place] = rows.train[place].without(part)
        without = Table.of(left, features, LOSS, weighted=True)
        if without.num_comparisons:
            head = without.fit(ridge=ridge, max_steps=config.max_newton_steps, start=fitted)
        else:  # without it nothing is known, and all scores are 0
            head = Fitted(torch.zeros_like(fitted.head))
        losses = dev.losses(head)
        found.append(
            _contribution(part, votes[part], len(places[part]), dev.groups, losses, with_all)
        )
    return {
        "contributions": [asdict(one) for one in sorted(found, key=lambda one: one.nats)],
        "left_unmeasured": len(votes) - len(wanted),
        "axis": config.axis,
        "ridge": ridge,
        "train_comparisons": train.num_comparisons,
        "dev_comparisons": len(with_all),
        "dev_groups": len(set(dev.groups)),
        "dev_log_loss": sum(with_all) / len(with_all),
    }


def _contribution(
    part: Part,
    votes: int,
    comparisons: int,
    groups: Sequence[str],
    without: Sequence[float],
    with_all: Sequence[float],
) -> Contribution:
    rows = [
        PairRow(group, one - other, 0.0, 1.0)
        for group, one, other in zip(groups, without, with_all, strict=True)
    ]
    means, intervals = bootstrap(rows)
    low, high = intervals["log_loss"] or (None, None)
    assert means["log_loss"] is not None  # there are rows
    return Contribution(
        by=part.by,
        name=part.name,
        votes=votes,
        comparisons=comparisons,
        nats=means["log_loss"],
        low=low,
        high=high,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, required=True, help="the directory that the features are of"
    )
    parser.add_argument("--features", type=Path, required=True, help="what `features` wrote")
    parser.add_argument("--data", type=Path, required=True, help="comparisons, JSONL")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="batch and guideline of votes")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON")
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    require(args.data.is_file(), f"there is no file {args.data}")
    features = Features.read(args.features)
    require(
        features.model_sha256 == content_hash(args.model),
        f"{args.features} holds the features of another model than {args.model}",
    )
    found = contributions(
        load_config(ContributionsConfig, args.config, args.overrides),
        features=features,
        data=args.data,
        labels=read_labels(args.labels) if args.labels else None,
    )
    with appearing(args.out) as file:
        json.dump(found, file, indent=2)
    sys.stderr.write(f"{args.out} holds {len(found['contributions'])} contributions\n")
    return 0
