"""Are the probabilities that scores stand for those with which people choose?

P = pairs, B = bins, K = outcomes: the first is better, or the second, and of a model that was
trained with ties the tie. A pair's log odds are those that the model gives its first
completion over its second, in nats: deviation x difference of the scores. Its target is the share
of votes for the first and half of those that tie the two, its weight the pair's share of its
comparison.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardmodel.losses import difference_nats, pair_logprobs

NUM_BINS = 10
COOLEST, HOTTEST = 1e-2, 1e2
"""Temperatures beyond these say no more: every pair right, or an order no better than chance."""


class Confidence(NamedTuple):
    """Of each pair's likeliest outcome, (P,) float64 both: its probability, and the share of votes
    for it. Equally likely outcomes have the mean of their shares."""

    confidence: Tensor
    accuracy: Tensor


@dataclass(frozen=True, slots=True)
class LogOdds:
    """(P,) float64 tensors; see above. ties, log_nu: as in losses.pair_nats, both or neither."""

    log_odds: Tensor
    targets: Tensor
    weights: Tensor
    ties: Tensor | None = None
    log_nu: float | None = None

    @classmethod
    def of(
        cls,
        log_odds: Sequence[float],
        targets: Sequence[float],
        weights: Sequence[float],
        *,
        ties: Sequence[float] | None = None,
        log_nu: float | None = None,
    ) -> "LogOdds":
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        return cls(
            log_odds=column(log_odds),
            targets=column(targets),
            weights=column(weights),
            ties=None if ties is None else column(ties),
            log_nu=log_nu,
        )

    def __len__(self) -> int:
        return len(self.log_odds)

    def nats(self, temperature: float = 1.0) -> Tensor:
        """(P,) cross-entropy of each pair at this temperature."""
        return difference_nats(
            self.log_odds / temperature, self.targets, ties=self.ties, log_nu=self.log_nu
        )

    def log_loss(self, temperature: float = 1.0) -> float:
        """Mean cross-entropy at this temperature, nats."""
        return ((self.weights * self.nats(temperature)).sum() / self.weights.sum()).item()

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """(P, K) of first, tie, second by Davidson's model; without ties of first and second.

        A temperature divides the log odds alone: how often equals are tied stays as it was learned.
        """
        z = self.log_odds / temperature
        if self.log_nu is None:
            return torch.stack((torch.sigmoid(z), torch.sigmoid(-z)), dim=-1)
        return pair_logprobs(z, self.log_nu).exp()

    def shares(self) -> Tensor:
        """(P, K) of the votes for each outcome."""
        if self.ties is None:
            return torch.stack((self.targets, 1 - self.targets), dim=-1)
        half = self.ties / 2
        return torch.stack((self.targets - half, self.ties, 1 - self.targets - half), dim=-1)

    def likeliest(self, temperature: float = 1.0) -> Confidence:
        probabilities = self.probabilities(temperature)  # (P, K)
        confidence = probabilities.amax(-1)  # (P,)
        chosen = (probabilities == confidence[:, None]).double()  # (P, K)
        return Confidence(confidence, (chosen * self.shares()).sum(-1) / chosen.sum(-1))


def fit_temperature(points: LogOdds) -> float:
    """The temperature of lowest log loss (arXiv:1706.04599, section 4.2), in [COOLEST, HOTTEST].

    The loss is convex in b = 1 / temperature; its slope, the mean of z (expected - target), where
    a tie is half for each, is followed to its zero by halving.
    """

    def slope(b: float) -> float:
        return pulls(points, 1 / b).sum().item()

    low, high = 1 / HOTTEST, 1 / COOLEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COOLEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def pulls(points: LogOdds, temperature: float) -> Tensor:
    """(P,) the slope of each pair's loss in 1 / temperature: above 0 asks for less certainty."""
    probabilities = points.probabilities(temperature)  # (P, K)
    expected = (1 + probabilities[:, 0] - probabilities[:, -1]) / 2
    return points.weights * points.log_odds * (expected - points.targets)


TOO_SURE, TOO_MODEST, AGAINST = "too_sure", "too_modest", "against"


@dataclass(frozen=True, slots=True)
class Slope:
    """By what a model's log odds would have to be multiplied to be right: 1 = calibrated, less =
    too sure of itself, more = too modest."""

    slope: float
    interval: tuple[float, float] | None
    """95 %; None where one group is all, or where the slope lies at the end of what is searched."""

    finding: str | None = None
    """What is certain at 95 %: TOO_SURE, TOO_MODEST, or AGAINST, the votes go the other way."""

    def as_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "interval": list(self.interval) if self.interval else None}


def reliability_slope(points: LogOdds, groups: Sequence[str]) -> Slope:
    """The slope of lowest log loss, 1 / temperature, with the interval that groups give it.

    groups: of each pair. The variance is the sandwich of an estimating equation, its middle summed
    by groups (Liang and Zeger 1986), with G / (G - 1) for few of them.
    """
    temperature = fit_temperature(points)
    slope = 1 / temperature
    if temperature in (COOLEST, HOTTEST):
        return Slope(slope, None, _finding_at_the_end(points, groups, temperature))
    probabilities = points.probabilities(temperature)  # (P, K)
    first, second = probabilities[:, 0], probabilities[:, -1]
    spread = (first + second) / 4 - ((first - second) / 2) ** 2  # (P,) d expected / d log odds
    bread = (points.weights * points.log_odds**2 * spread).sum().item()
    error = _standard_error(pulls(points, temperature), groups)
    if error is None or bread <= 0:
        return Slope(slope, None)
    half = TIMES * error / bread
    finding = TOO_SURE if slope + half < 1 else TOO_MODEST if slope - half > 1 else None
    return Slope(slope, (slope - half, slope + half), finding)


TIMES = NormalDist().inv_cdf(0.975)
"""Standard errors on either side of an estimate, for 95 %."""


def _standard_error(pulls: Tensor, groups: Sequence[str]) -> float | None:
    """Of their sum, by groups; None where one group is all."""
    by_group: dict[str, float] = defaultdict(float)
    for group, pull in zip(groups, pulls.tolist(), strict=True):
        by_group[group] += pull
    count = len(by_group)
    if count < 2:
        return None
    return math.sqrt(sum(pull**2 for pull in by_group.values()) * count / (count - 1))


def _finding_at_the_end(points: LogOdds, groups: Sequence[str], temperature: float) -> str | None:
    """Where no slope that is searched is the best, by the score test: is the loss certainly
    sloping at 1, and, for a model that would be better the other way round, at 0?"""

    def certain(at: float) -> float:
        """-1 or 1 where the sum of the pulls is certainly below or above 0."""
        asked = pulls(points, at)
        total, error = asked.sum().item(), _standard_error(asked, groups)
        return math.copysign(1, total) if error is not None and abs(total) > TIMES * error else 0

    if temperature == COOLEST:
        return TOO_MODEST if certain(1.0) < 0 else None
    if certain(math.inf) > 0:
        return AGAINST
    return TOO_SURE if certain(1.0) > 0 else None


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
    """A reliability diagram's data: bins of rising confidence, empty ones left out."""

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
    """Confidence in each pair's likeliest outcome, from 1 / K to 1, against its share of the votes.

    equal: `mass` bins hold equal weight (the sorted pairs are cut where the weight below a pair's
    middle passes k / B), `width` bins cut [1 / K, 1] evenly.
    """
    least = 1 / points.shares().shape[-1]
    found = points.likeliest(temperature)
    return binned(*found, points.weights, equal=equal, num_bins=num_bins, least=least)


def tie_reliability(points: LogOdds) -> Reliability:
    """The probability of a tie, from 0 to 1, against the share of ties; bins of equal mass. Of
    points with ties."""
    return binned(points.probabilities()[:, 1], points.shares()[:, 1], points.weights, least=0.0)


def binned(
    confidence: Tensor,
    accuracy: Tensor,
    weights: Tensor,
    *,
    least: float,
    equal: str = "mass",
    num_bins: int = NUM_BINS,
) -> Reliability:
    """All (P,) float64; confidence in [least, 1]. See `reliability`."""
    weights = weights / weights.sum()
    if equal == "mass":
        order = torch.argsort(confidence, stable=True)
        below = torch.empty_like(confidence)
        below[order] = weights[order].cumsum(0) - weights[order] / 2
        place = (below * num_bins).long()
    else:
        place = ((confidence - least) / (1 - least) * num_bins).long()
    place = place.clamp(0, num_bins - 1)  # (P,) bin of each pair
    width = (1 - least) / num_bins
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
            else (least + number * width, least + (number + 1) * width)
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
    found = {
        "outcomes": points.shares().shape[-1],
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
    if points.ties is not None:
        ties = tie_reliability(points)
        found |= {"tie_ece": ties.ece, "tie_reliability": ties.as_json()}
    return found
