"""A first look through the train rows: what the targets and the loss's own numbers start from."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from policy.comparisons import Comparison, read_comparisons
from policy.config import require
from policy.files import with_bar
from rewardmodel.config import RewardConfig
from rewardmodel.strength import StrengthCount


def log_lengths(texts: Sequence[str]) -> list[float]:
    """Of characters, as `evaluate` counts length; an empty text has 0."""
    return [math.log(1 + len(text)) for text in texts]


@dataclass
class Survey:
    """Counts over comparisons: strengths and who agreed, ties, ratings."""

    strengths: StrengthCount = field(default_factory=StrengthCount)
    num_votes: Counter[str | None] = field(default_factory=Counter)
    """By axis, those that decide or tie a pair."""
    tie_sums: dict[str | None, float] = field(default_factory=lambda: defaultdict(float))
    """By axis, over those votes, the share of their pairs that they tie."""
    levels: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Rating -> level -> how often it was given."""
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rating -> lowest and highest level of its scale, as far as rows tell."""

    @classmethod
    def of(cls, comparisons: Iterable[Comparison], axes: Collection[str] = ()) -> "Survey":
        """Of the train rows among them; with axes, of what is said on these."""
        survey = cls()
        for comparison in comparisons:
            if comparison.in_split("train"):
                for part in [comparison.on(axis) for axis in axes] or [comparison]:
                    survey.add(part)
        return survey

    def add(self, comparison: Comparison) -> None:
        self.strengths.add(comparison)
        for vote in comparison.votes:
            ties, strict = vote.num_ties(), len(vote.strict_pairs())
            if ties or strict:
                self.num_votes[vote.axis] += 1
                self.tie_sums[vote.axis] += ties / (ties + strict)
        lengths = log_lengths(comparison.texts)
        for i, j in combinations(range(len(lengths)), 2):
            self.num_length_pairs += 1
            self.length_square_sum += (lengths[i] - lengths[j]) ** 2
        for one in comparison.judgments:
            self.levels[one.name][one.level] += 1
            low, high = self.ends.get(one.name, (one.low, one.high))
            self.ends[one.name] = (min(low, one.low), max(high, one.high))

    num_length_pairs: int = 0
    length_square_sum: float = 0.0
    """Over two completions of one comparison, the squared difference of their log lengths."""

    @property
    def length_unit(self) -> float:
        """How far log lengths of two answers to a prompt lie apart, root mean square."""
        return math.sqrt(self.length_square_sum / max(1, self.num_length_pairs))

    def tie_share(self, axis: str | None = None) -> float:
        """Of an average vote's pairs, those that it ties; of the votes on one axis, or of all."""
        if axis is None:
            total, ties = self.num_votes.total(), sum(self.tie_sums.values())
        else:
            total, ties = self.num_votes[axis], self.tie_sums[axis]
        return ties / total if total else 0.0

    def scales(self, only: str | None) -> dict[str, tuple[int, int]]:
        """Ratings with two levels or more, by name; `only` that one if it is named."""
        return {
            name: ends
            for name, ends in sorted(self.ends.items())
            if only in (None, name) and ends[0] < ends[1]
        }


def surveyed(config: RewardConfig, data: Path) -> Survey:
    """What the config's loss starts from. Raises BadInput where the train rows have none of it."""
    if not config.wants_survey:
        return Survey()
    rows = read_comparisons(data, axis=config.voted_axes)
    survey = Survey.of(with_bar(rows, data, "survey"), axes=tuple(config.axes or ()))
    require(
        config.strength == "ignore" or survey.strengths.num_levels > 0,
        f"strength is {config.strength}, and no train vote in {data} has one",
    )
    require(
        not config.length_head or survey.length_unit > 0,
        f"length_head wants answers of different lengths, and {data} has none to one prompt",
    )
    require(
        not config.pointwise_weight or bool(survey.scales(config.rating)),
        f"pointwise_weight is {config.pointwise_weight}, and the train rows of {data} hold no "
        f"rating {config.rating or 'of two levels'}: {sorted(survey.ends)}",
    )
    return survey
