"""Are the probabilities that scores stand for those with which people choose?

P = pairs, B = bins. A pair's log odds are those that the model gives its first completion over its
second, in nats: deviation x difference of the scores. Its target is the share of votes for the
first, its weight the pair's share of its comparison.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rewardmodel.losses import pair_nats

NUM_BINS = 10
COOLEST, HOTTEST = 1e-2, 1e2
"""Temperatures beyond these say no more: every pair right, or an order no better than chance."""


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Three (P,) float64 tensors; see above."""

    log_odds: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls, log_odds: Sequence[float], targets: Sequence[float], weights: Sequence[float]
    ) -> "LogOdds":
        columns = (torch.tensor(each, dtype=torch.float64) for each in (log_odds, targets, weights))
        return cls(*columns)

    def nats(self, temperature: float = 1.0) -> Tensor:
        """(P,) cross-entropy of each pair at this temperature."""
        count = len(self.log_odds)
        scores = torch.cat([self.log_odds / temperature, torch.zeros(1, dtype=torch.float64)])
        pairs = torch.stack([torch.arange(count), torch.full((count,), count)], dim=1)
        return pair_nats(scores, pairs, self.targets)

    def log_loss(self, temperature: float = 1.0) -> float:
        """Mean cross-entropy at this temperature, nats."""
        return ((self.weights * self.nats(temperature)).sum() / self.weights.sum()).item()


def fit_temperature(points: LogOdds) -> float:
    """The temperature of lowest log loss (arXiv:1706.04599, section 4.2), in [COOLEST, HOTTEST].

    The loss is convex in b = 1 / temperature; its slope, the mean of z (sigmoid(b z) - target), is
    followed to its zero by halving.
    """

    def slope(b: float) -> float:
        off = torch.sigmoid(b * points.log_odds) - points.targets
        return (points.weights * points.log_odds * off).sum().item()

    low, high = 1 / HOTTEST, 1 / COOLEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COOLEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of like confidence. confidence, accuracy: weighted means; share: of all weight."""

    low: float
    high: float
    confidence: float
    accuracy: float
    share: float
    num_pairs: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram's data: bins of confidence from one half to 1, empty ones left out."""

    bins: tuple[Bin, ...]

    @property
    def ece(self) -> float:
        """Expected calibration error (arXiv:1706.04599): mean |accuracy - confidence|, by share."""
        return sum(each.share * abs(each.accuracy - each.confidence) for each in self.bins)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.bins]


def reliability(
    points: LogOdds, *, temperature: float = 1.0, equal: str = "mass", num_bins: int = NUM_BINS
) -> Reliability:
    """Confidence against accuracy.

    A pair's confidence is the probability of the completion that the model prefers, its accuracy
    the share of votes for that one; equal scores have one half of both. equal: `mass` bins hold
    equal weight (the sorted pairs are cut where the weight below a pair's middle passes k / B),
    `width` bins cut [0.5, 1] evenly.
    """
    z = points.log_odds / temperature
    confidence = torch.sigmoid(z.abs())  # (P,) in [0.5, 1]
    agreed = torch.where(z > 0, points.targets, 1 - points.targets)
    accuracy = torch.where(z == 0, torch.full_like(z, 0.5), agreed)
    weights = points.weights / points.weights.sum()
    if equal == "mass":
        order = torch.argsort(confidence, stable=True)
        below = torch.empty_like(z)
        below[order] = weights[order].cumsum(0) - weights[order] / 2
        place = (below * num_bins).long()
    else:
        place = ((confidence - 0.5) * 2 * num_bins).long()
    place = place.clamp(0, num_bins - 1)  # (P,) bin of each pair
    bins = []
    for number in range(num_bins):
        here = place == number
        share = weights[here].sum().item()
        if share == 0:
            continue
        within = weights[here] / share
        edges = (
            (confidence[here].min().item(), confidence[here].max().item())
            if equal == "mass"
            else (0.5 + number / (2 * num_bins), 0.5 + (number + 1) / (2 * num_bins))
        )
        bins.append(
            Bin(
                *edges,
                confidence=(within * confidence[here]).sum().item(),
                accuracy=(within * accuracy[here]).sum().item(),
                share=share,
                num_pairs=int(here.sum()),
            )
        )
    return Reliability(tuple(bins))


def calibration(points: LogOdds, temperature: float) -> dict[str, Any]:
    """Figures of `evaluate`: before is the model's own probability, after the one at its stored
    temperature; temperature_here is the one that these very pairs would ask for."""
    before, after = reliability(points), reliability(points, temperature=temperature)
    wide = [reliability(points, temperature=at, equal="width").ece for at in (1.0, temperature)]
    return {
        "temperature": temperature,
        "temperature_here": fit_temperature(points),
        "ece_bins": NUM_BINS,
        "ece": {"equal_mass": before.ece, "equal_width": wide[0]},
        "ece_calibrated": {"equal_mass": after.ece, "equal_width": wide[1]},
        "pair_log_loss": points.log_loss(),
        "pair_log_loss_calibrated": points.log_loss(temperature),
        "reliability": before.as_json(),
        "reliability_calibrated": after.as_json(),
    }
