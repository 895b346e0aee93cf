"""How well scores agree with votes: accuracy and log loss, each with an interval over groups.

What is measured. Take one comparison. Each of its votes that decides a pair has an opinion on one
or more pairs; the vote's accuracy is the share of those pairs that the scores order the same way,
a pair with equal scores counting one half; the comparison's accuracy is the mean over its votes,
by vote weight. So a model is measured against the answers themselves, not against a majority:
where two of three votes prefer A, putting A first is worth 2/3. Strict log loss is the mean, in the
same weights, of `-log sigmoid(deviation x (r_better - r_worse))`: the training loss without
centring, in the units that the model was trained in (policy/score_scale.py). The figures are means
over comparisons, each counted once. A completion too long for the model is left out of its list,
whose other pairs count; a comparison that no vote decides, or none without the long ones, is left
out and counted.

Ties give no strict pair. Of a model that learned them by Davidson a tie is an answer like the
others: `log_loss` is then that of three outcomes, over comparisons with any (outcomes.py), and
strict log loss, which is the same measure for every model, stands beside it. Of others the two are
one. Judgments of single completions have figures of their own (pointwise.py).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from policy.comparisons import Comparison, PairTable, Vote
from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from policy.scoring import Scorer
from rewardmodel.axes import ByAxis
from rewardmodel.batches import fitting, same_tokens
from rewardmodel.bootstrap import INTERVAL, PairRow, bootstrap
from rewardmodel.calibration import LogOdds
from rewardmodel.disagreement import Disagreement
from rewardmodel.learned import Learned
from rewardmodel.losses import pair_nats
from rewardmodel.outcomes import Outcomes
from rewardmodel.pointwise import Pointwise

NUM_PROBED = 16
"""Completions kept as ids, with which it is tried whether their scores depend on the batch."""
COMPARISONS_AT_ONCE = 512
"""Encoded, sorted by length and scored together: bounds memory, saves padding."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison that counts with the scores of its completions, without their texts."""

    place: int
    """Of the comparison among all that were read."""
    kept: tuple[int, ...]
    """Which of its completions were scored: not those that are too long for the model."""
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
    """Without a strict pair among the completions that are not too long."""
    num_lists_shortened: int = 0
    """Measured, without a completion that is too long."""
    num_others_too_long: int = 0
    """Without a strict pair, but with ties or judgments that would have been measured."""
    num_same_tokens: int = 0
    """Comparisons with two completions that the model cannot tell apart: training leaves them out,
    here such a pair is measured like any with equal scores."""
    num_prompts_shortened: int = 0
    votes_by_kind: Counter[str] = field(default_factory=Counter)
    scale: ScoreScale = field(default_factory=ScoreScale)
    judged: list[Judged] = field(default_factory=list)
    disagreement: Disagreement = field(default_factory=Disagreement)
    outcomes: Outcomes | None = None
    """Where the model learned ties."""
    pointwise: Pointwise = field(default_factory=lambda: Pointwise({}))
    by_axis: ByAxis = field(default_factory=ByAxis)
    probed: list[list[int]] = field(default_factory=list)
    """The first completions that were scored, as ids with their prompts."""

    @classmethod
    def of(cls, scorer: Scorer, comparisons: Iterable[Comparison]) -> "Evaluation":
        learned = Learned.of(scorer)
        evaluation = cls(
            scale=scorer.scale,
            outcomes=None if learned.log_nu is None else Outcomes(learned.log_nu),
            pointwise=Pointwise(learned.scales),
            by_axis=ByAxis.of(learned.by_axis),
        )
        window: list[Comparison] = []
        for comparison in comparisons:
            window.append(comparison)
            if len(window) == COMPARISONS_AT_ONCE:
                evaluation._add(scorer, window)
                window = []
        evaluation._add(scorer, window)
        return evaluation

    def _add(self, scorer: Scorer, window: Sequence[Comparison]) -> None:
        kept: list[tuple[int, tuple[int, ...], Comparison]] = []
        ids: list[list[int]] = []
        for comparison in window:
            place, self.num_read = self.num_read, self.num_read + 1
            self.num_ties += comparison.table.num_ties
            strict = bool(comparison.table.pairs)
            self.num_no_strict_pair += not strict
            if not strict and not self._says_more(comparison):
                continue
            encoded = fitting(comparison, scorer.encode)
            if len(encoded) < len(comparison.texts):
                comparison = comparison.among(list(encoded))
                left = bool(comparison.table.pairs)
                self.num_too_long += strict and not left
                measured = left or self._says_more(comparison)
                self.num_others_too_long += not strict and not measured
                if not measured:
                    continue
                self.num_lists_shortened += 1
                strict = left
            self.num_same_tokens += strict and same_tokens(encoded.values())
            kept.append((place, tuple(encoded), comparison))
            ids += [each.ids for each in encoded.values()]
            self.num_prompts_shortened += any(each.dropped_turns for each in encoded.values())
        self.probed += ids[: max(0, NUM_PROBED - len(self.probed))]
        scored = iter(scorer.scored_ids(ids))
        for place, indices, comparison in kept:
            self._count(place, indices, comparison, [next(scored) for _ in comparison.texts])

    def _says_more(self, comparison: Comparison) -> bool:
        """Whether there is something to measure beside strict pairs."""
        learns_ties = self.outcomes is not None and comparison.table.num_ties > 0
        learns_ties |= self.by_axis.learns_from_ties(comparison)
        return learns_ties or bool(comparison.judgments)

    def _count(
        self,
        place: int,
        kept: tuple[int, ...],
        comparison: Comparison,
        scored: Sequence[Scored],
    ) -> None:
        table = comparison.table
        scores = [each.score for each in scored]
        nats = [self.scale.mean + self.scale.deviation * score for score in scores]
        if self.outcomes is not None:
            self.outcomes.add(comparison, nats)
        self.pointwise.add(comparison, nats)
        self._count_axes(comparison, scored)
        if not table.pairs:
            return
        self.rows.append(PairRow(comparison.group, *self._measure(table, scores), 1.0))
        members = zip(*(each.members for each in scored), strict=True)  # none of a single model
        self.disagreement.add(table, scored, [self._measure(table, own) for own in members])
        self.judged.append(
            Judged(
                place,
                kept,
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

    def _count_axes(self, comparison: Comparison, scored: Sequence[Scored]) -> None:
        for number, axis in enumerate(self.scale.axes):
            own = comparison.on(axis.name)
            logits = [axis.deviation * each.axes[number] for each in scored]
            if axis.name in self.by_axis.outcomes:
                self.by_axis.outcomes[axis.name].add(own, logits)
            if own.table.pairs:
                self.by_axis.add(axis.name, comparison.group, measure(own.table, logits))

    def _measure(self, table: PairTable, scores: Sequence[float]) -> Measured:
        return measure(table, [self.scale.deviation * score for score in scores])

    def __bool__(self) -> bool:
        """Whether anything could be measured."""
        tied = [*self.by_axis.outcomes.values(), *([self.outcomes] if self.outcomes else [])]
        ties = any(outcomes.groups for outcomes in tied)
        return bool(self.rows) or ties or bool(self.pointwise.levels)

    def log_odds(self) -> LogOdds:
        """The strict pairs of all rows, at temperature 1; each comparison's weights sum to 1."""
        log_odds, targets, weights = [], [], []
        for judged in self.judged:
            for (i, j), target, weight in judged.pairs():
                log_odds.append(self.scale.deviation * (judged.scores[i] - judged.scores[j]))
                targets.append(target)
                weights.append(weight)
        return LogOdds.of(log_odds, targets, weights)

    def pair_groups(self) -> list[str]:
        """The group of each of those pairs."""
        return [judged.group for judged in self.judged for _ in judged.table.pairs]

    def answers(self) -> LogOdds:
        """What the model gives probabilities of: three outcomes where it learned ties, else the
        strict pairs."""
        return self.log_odds() if self.outcomes is None else self.outcomes.points()

    def figures(self, *, seed: int = 0) -> dict[str, Any]:
        """The JSON of `evaluate`. Intervals are null where there is but one group, accuracy and
        log loss where there is no pair."""
        means, intervals = bootstrap(self.rows, seed=seed)
        strict = {
            "strict_log_loss": means["log_loss"],
            "strict_log_loss_interval": intervals["log_loss"],
        }
        found: dict[str, Any] = {
            "n": len(self.rows),
            "num_groups": len({row.group for row in self.rows}),
            "num_answers": self.num_answers,
            "num_pairs": self.num_pairs,
            "accuracy": means["correct"],
            "accuracy_interval": intervals["correct"],
            "log_loss": means["log_loss"],
            "log_loss_interval": intervals["log_loss"],
            **strict,
            "interval_share": INTERVAL,
            "num_ties": self.num_ties,
            "num_score_ties": self.num_score_ties,
            "left_out": {
                "no_strict_pair": self.num_no_strict_pair,
                "too_long": self.num_too_long,
            },
            "num_others_too_long": self.num_others_too_long,
            "num_lists_shortened": self.num_lists_shortened,
            "num_same_tokens": self.num_same_tokens,
            "num_prompts_shortened": self.num_prompts_shortened,
            "votes_by_kind": dict(sorted(self.votes_by_kind.items())),
            **self.disagreement.figures(),
            **self.by_axis.figures(self.scale.axes, seed=seed),
        }
        if self.outcomes is not None and self.outcomes.groups:
            ties = self.outcomes.figures(seed=seed)
            found |= {name: ties[name] for name in ("log_loss", "log_loss_interval")}
            found["three_outcomes"] = ties
        if judgments := self.pointwise.figures(seed=seed):
            found["judgments"] = judgments
        return found
