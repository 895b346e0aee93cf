"""How well scores foretell what people say of single completions: ratings, lines, thumbs."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from policy.comparisons import Comparison
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.correlation import spearman
from rewardmodel.learned import RatingScale
from rewardmodel.losses import level_logprobs
from rewardmodel.targets import TargetRule


@dataclass
class Pointwise:
    """Judgments by the name of their rating, with the scores of what was judged, in nats."""

    scales: Mapping[str, RatingScale]
    """Those that the model has thresholds of; of others it can say only which is higher."""
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    levels: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[PairRow]] = field(default_factory=lambda: defaultdict(list))
    """A comparison's log loss and accuracy by its judgments of one rating, which share weight 1."""
    given: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Judgments by level, from 0 and within the model's scale."""

    def add(self, comparison: Comparison, scores: Sequence[float]) -> None:
        """scores: of its completions, in nats."""
        for said in comparison.judgments:
            self.scores[said.name].append(scores[said.completion])
            self.levels[said.name].append(said.level)
        for name, scale in self.scales.items():
            rule = TargetRule(loss="pointwise", scales={name: (scale.low, scale.high)})
            judged = rule.targets(comparison).judged
            if not judged:
                continue
            logprobs = level_logprobs(
                torch.tensor([scores[one.completion] for one in judged], dtype=torch.float64),
                scale.thresholds,
            )  # (J, L)
            likeliest = logprobs.argmax(-1).tolist()
            cost = correct = 0.0
            for place, one in enumerate(judged):
                cost -= one.weight * logprobs[place, one.level].item()
                correct += one.weight * (likeliest[place] == one.level)
            self.rows[name].append(PairRow(comparison.group, cost, correct, 1.0))
            self.given[name].update(
                min(scale.high, max(scale.low, said.level)) - scale.low
                for said in comparison.judgments
                if said.name == name
            )

    def figures(self, *, seed: int = 0) -> dict[str, dict[str, Any]]:
        """By rating. spearman: of score and level over all judgments, null where one of them never
        varies. Where the model has thresholds: accuracy of its likeliest level and log loss, means
        over comparisons, and what a guess reaches that knows no more than how often each level was
        given: the commonest one's share, and the entropy of the shares."""
        return {
            name: {
                "num_judgments": len(self.levels[name]),
                "spearman": _spearman(self.scores[name], self.levels[name]),
                **self._measured(name, seed),
            }
            for name in sorted(self.levels)
        }

    def _measured(self, name: str, seed: int) -> dict[str, Any]:
        rows = self.rows.get(name)
        if not rows:
            return {}
        means, intervals = bootstrap(rows, seed=seed)
        count = self.given[name].total()
        shares = [each / count for each in self.given[name].values()]
        return {
            "n": len(rows),
            "num_groups": len({row.group for row in rows}),
            "accuracy": means["correct"],
            "accuracy_interval": intervals["correct"],
            "log_loss": means["log_loss"],
            "log_loss_interval": intervals["log_loss"],
            "commonest_share": max(shares),
            "entropy": -sum(share * math.log(share) for share in shares),
        }


def _spearman(scores: Sequence[float], levels: Sequence[int]) -> float | None:
    if len(set(scores)) < 2 or len(set(levels)) < 2:
        return None
    return spearman(scores, levels)
