"""What a loss learned beside the model's weights, read back from config.json for measuring.

All of it is in the units that the model was trained in: nats of preference, score = mean +
deviation x what `policy.scoring` says (policy/score_scale.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from policy.scoring import EnsembleScorer, Scorer
from rewardmodel.objective import CONFIG_KEY


@dataclass(frozen=True, slots=True)
class RatingScale:
    """A rating's levels from low to high and the (L - 1,) float64 thresholds between them."""

    low: int
    high: int
    thresholds: Tensor


@dataclass(frozen=True, slots=True)
class Learned:
    """log_nu: Davidson's, None where ties were not learned from, or by heads apart: then by_axis
    has one for each, which says nothing of their sum. scales: of ratings, by name."""

    log_nu: float | None = None
    by_axis: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, RatingScale] = field(default_factory=dict)

    @classmethod
    def of(cls, scorer: Scorer) -> "Learned":
        """An ensemble's are its members' means, in the standard units in which their scores are
        combined; what not all of them learned, it has not. A model of several axes has what its
        heads learned of ties; an older one's share a number."""
        if isinstance(scorer, EnsembleScorer):
            return _together(scorer)
        kept = getattr(scorer.model.config, CONFIG_KEY, None) or {}
        if axes := scorer.scale.axes:
            log_nu = kept.get("log_nu")
            if not isinstance(log_nu, Mapping):
                log_nu = {} if log_nu is None else {axis.name: log_nu for axis in axes}
            return cls(by_axis=log_nu)  # thresholds are of the heads, and not of their sum
        return cls(
            log_nu=kept.get("log_nu"),
            scales={name: _scale(one) for name, one in kept.get("scales", {}).items()},
        )


def _scale(kept: Mapping[str, Any]) -> RatingScale:
    thresholds = torch.tensor(kept["thresholds"], dtype=torch.float64)
    return RatingScale(kept["low"], kept["high"], thresholds)


def _together(scorer: EnsembleScorer) -> Learned:
    each = [Learned.of(member) for member in scorer.members]
    nus = [one.log_nu for one in each if one.log_nu is not None]
    first = each[0].scales
    shared = [
        name
        for name, scale in first.items()
        if all(_ends(one.scales.get(name)) == _ends(scale) for one in each)
    ]
    return Learned(
        log_nu=sum(nus) / len(nus) if len(nus) == len(each) else None,
        by_axis={
            axis: fmean(one.by_axis[axis] for one in each)
            for axis in each[0].by_axis
            if all(axis in one.by_axis for one in each)
        },
        scales={
            name: RatingScale(
                first[name].low,
                first[name].high,
                _combined(scorer, [one.scales[name].thresholds for one in each]),
            )
            for name in shared
        },
    )


def _ends(scale: RatingScale | None) -> tuple[int, int] | None:
    return None if scale is None else (scale.low, scale.high)


def _combined(scorer: EnsembleScorer, thresholds: Sequence[Tensor]) -> Tensor:
    """Members' thresholds as scores of theirs, standardised as their scores are, and their mean in
    the ensemble's nats."""
    ensemble = scorer.ensemble
    standard = [
        ((own - member.scale.mean) / member.scale.deviation - as_described.mean)
        / as_described.deviation
        for own, member, as_described in zip(
            thresholds, scorer.members, ensemble.members, strict=True
        )
    ]
    return torch.stack(standard).mean(0) * ensemble.nats
