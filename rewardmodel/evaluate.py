"""How well scores agree with votes: accuracy and log loss, each with an interval over groups.

What is measured. Take one comparison. Each of its votes that decides a pair has an opinion on one
or more pairs; the vote's accuracy is the share of those pairs that the scores order the same way,
a pair with equal scores counting one half; the comparison's accuracy is the mean over its votes,
by vote weight. So a model is measured against the answers themselves, not against a majority:
where two of three votes prefer A, putting A first is worth 2/3. Log loss is the mean, in the same
weights, of `-log sigmoid(deviation x (r_better - r_worse))`: the training loss without centring,
in the units that the model was trained in (policy/score_scale.py). The figures are
means over comparisons, each counted once. Ties give no pair and are counted. A comparison that no
vote decides, or with a completion too long for the model, is left out and counted.

The interval is a percentile bootstrap that draws groups (a row's `group`, else its prompt) with
replacement, for answers to one prompt are not independent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from policy.scoring import Scorer, TooLong, load_scorer
from rewardmodel.calibration import LogOdds
from rewardmodel.data import Comparison, PairTable, Vote
from rewardmodel.disagreement import Disagreement
from rewardmodel.losses import pair_nats

NUM_RESAMPLES = 2000
INTERVAL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Groups drawn together in the bootstrap: bounds memory."""
COMPARISONS_AT_ONCE = 512
"""Encoded, sorted by length and scored together: bounds memory, saves padding."""


class PairRow(NamedTuple):
    """One comparison's share of the figures: what two models are compared on, group by group."""

    group: str
    log_loss: float
    """Nats, the mean over the comparison's votes."""
    correct: float
    """In [0, 1], the mean over the comparison's votes."""
    weight: float
    """1: each comparison counts once."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison that counts with the scores of its completions, without their texts."""

    place: int
    """Of the comparison among all that were read."""
    group: str
    scores: tuple[float, ...]
    chars: tuple[int, ...]
    """Length of each completion."""
    votes: tuple[Vote, ...]
    table: PairTable
    labels: Mapping[str, str]

    def pairs(self) -> Iterator[tuple[tuple[int, int], float, float]]:
        """(i, j), share of votes for i, weight; as in PairTable."""
        return zip(self.table.pairs, self.table.targets, self.table.weights, strict=True)


class Measured(NamedTuple):
    """log_loss in nats and correct in [0, 1], both means over a comparison's votes."""

    log_loss: float
    correct: float


def measure(table: PairTable, scores: Sequence[float]) -> Measured:
    """One comparison's figures from the scores of its completions, which may come from anything."""
    log_loss = correct = 0.0
    nats = pair_nats(
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(table.pairs),
        torch.tensor(table.targets, dtype=torch.float64),
    ).tolist()
    for (i, j), target, weight, pair_loss in zip(
        table.pairs, table.targets, table.weights, nats, strict=True
    ):
        log_loss += weight * pair_loss
        if scores[i] == scores[j]:
            correct += weight / 2
        else:
            correct += weight * (target if scores[i] > scores[j] else 1 - target)
    return Measured(log_loss, correct)


def evaluate_pairs(
    model: str | Path | Scorer, comparisons: Iterable[Comparison], *, device: str = "cpu"
) -> list[PairRow]:
    """One row per comparison that counts, in order: for comparing models on the same comparisons.

    model: a reward-model directory or a loaded scorer.
    """
    scorer = model if isinstance(model, Scorer) else load_scorer(model, device)
    return Evaluation.of(scorer, comparisons).rows


@dataclass
class Evaluation:
    """What was counted and measured on the way through a file."""

    rows: list[PairRow] = field(default_factory=list)
    num_read: int = 0
    num_answers: int = 0
    num_pairs: int = 0
    num_ties: int = 0
    num_score_ties: int = 0
    num_no_strict_pair: int = 0
    num_too_long: int = 0
    num_prompts_shortened: int = 0
    votes_by_kind: Counter[str] = field(default_factory=Counter)
    scale: ScoreScale = field(default_factory=ScoreScale)
    judged: list[Judged] = field(default_factory=list)
    disagreement: Disagreement = field(default_factory=Disagreement)

    @classmethod
    def of(cls, scorer: Scorer, comparisons: Iterable[Comparison]) -> "Evaluation":
        evaluation = cls(scale=scorer.scale)
        window: list[Comparison] = []
        for comparison in comparisons:
            window.append(comparison)
            if len(window) == COMPARISONS_AT_ONCE:
                evaluation._add(scorer, window)
                window = []
        evaluation._add(scorer, window)
        return evaluation

    def _add(self, scorer: Scorer, window: Sequence[Comparison]) -> None:
        kept: list[tuple[int, Comparison]] = []
        ids: list[list[int]] = []
        for comparison in window:
            place, self.num_read = self.num_read, self.num_read + 1
            self.num_ties += comparison.table.num_ties
            if not comparison.table.pairs:
                self.num_no_strict_pair += 1
                continue
            try:
                encoded = [scorer.encode(comparison.prompt, text) for text in comparison.texts]
            except TooLong:
                self.num_too_long += 1
                continue
            kept.append((place, comparison))
            ids += [each.ids for each in encoded]
            self.num_prompts_shortened += any(each.dropped_turns for each in encoded)
        scored = iter(scorer.scored_ids(ids))
        for place, comparison in kept:
            self._count(place, comparison, [next(scored) for _ in comparison.texts])

    def _count(self, place: int, comparison: Comparison, scored: Sequence[Scored]) -> None:
        table = comparison.table
        scores = [each.score for each in scored]
        self.rows.append(PairRow(comparison.group, *self._measure(table, scores), 1.0))
        members = zip(*(each.members for each in scored), strict=True)  # none of a single model
        self.disagreement.add(table, scored, [self._measure(table, own) for own in members])
        self.judged.append(
            Judged(
                place,
                comparison.group,
                tuple(scores),
                tuple(len(text) for text in comparison.texts),
                comparison.votes,
                table,
                comparison.labels,
            )
        )
        self.num_answers += table.num_answers
        self.num_pairs += table.num_strict
        self.num_score_ties += sum(scores[i] == scores[j] for i, j in table.pairs)
        self.votes_by_kind.update(vote.kind or "unknown" for vote in comparison.votes)

    def _measure(self, table: PairTable, scores: Sequence[float]) -> Measured:
        return measure(table, [self.scale.deviation * score for score in scores])

    def log_odds(self) -> LogOdds:
        """The pairs of all rows, at temperature 1; each comparison's weights sum to 1."""
        log_odds, targets, weights = [], [], []
        for judged in self.judged:
            for (i, j), target, weight in judged.pairs():
                log_odds.append(self.scale.deviation * (judged.scores[i] - judged.scores[j]))
                targets.append(target)
                weights.append(weight)
        return LogOdds.of(log_odds, targets, weights)

    def figures(self, *, seed: int = 0) -> dict[str, Any]:
        """The JSON of `evaluate`. Intervals are null where there is but one group."""
        means, intervals = bootstrap(self.rows, seed=seed)
        return {
            "n": len(self.rows),
            "num_groups": len({row.group for row in self.rows}),
            "num_answers": self.num_answers,
            "num_pairs": self.num_pairs,
            "accuracy": means["correct"],
            "accuracy_interval": intervals["correct"],
            "log_loss": means["log_loss"],
            "log_loss_interval": intervals["log_loss"],
            "interval_share": INTERVAL,
            "num_ties": self.num_ties,
            "num_score_ties": self.num_score_ties,
            "left_out": {
                "no_strict_pair": self.num_no_strict_pair,
                "too_long": self.num_too_long,
            },
            "num_prompts_shortened": self.num_prompts_shortened,
            "votes_by_kind": dict(sorted(self.votes_by_kind.items())),
            **self.disagreement.figures(),
        }


def bootstrap(
    rows: Sequence[PairRow], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> tuple[dict[str, float], dict[str, list[float] | None]]:
    """Weighted means of log_loss and correct, and their percentile intervals over groups."""
    sums = group_sums(rows)  # (G, 3): weighted log loss, weighted correct, weight
    total = sums.sum(0)
    names = ("log_loss", "correct")
    means = {name: (total[at] / total[2]).item() for at, name in enumerate(names)}
    if len(sums) < 2:
        return means, dict.fromkeys(names)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    at_once = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, num_resamples, at_once):
        shape = (min(at_once, num_resamples - start), len(sums))
        resample = sums[torch.randint(len(sums), shape, generator=generator)].sum(1)  # (R, 3)
        drawn.append(resample[:, :2] / resample[:, 2:])
    tails = torch.tensor([(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], dtype=torch.float64)
    ends = torch.quantile(torch.cat(drawn), tails, dim=0)  # (2, 2)
    return means, {name: ends[:, at].tolist() for at, name in enumerate(names)}


def group_sums(rows: Sequence[PairRow]) -> Tensor:
    """(G, 3) float64, one line per group in order of appearance."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        entry = sums.setdefault(row.group, [0.0, 0.0, 0.0])
        entry[0] += row.weight * row.log_loss
        entry[1] += row.weight * row.correct
        entry[2] += row.weight
    return torch.tensor(list(sums.values()), dtype=torch.float64)
