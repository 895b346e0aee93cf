"""Several reward models as one: how their scores become one, and the file that says so.

    DIR/ensemble.json            how to combine, and each member's mean and deviation
    DIR/member-0/, member-1/ ... whole reward-model directories

Members differ in zero and scale, so each is standardised before scores are compared: z = (score -
mean) / deviation, measured over the anchors that all members scored. M = members, N =
completions.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from policy.config import BadInput, require
from policy.score_scale import ScoreScale

MANIFEST = "ensemble.json"
RULES = ("mean", "worst", "uncertainty")
"""Mean of the members; the least of them; mean minus weight x variance (arXiv:2310.02743)."""


class Scored(NamedTuple):
    """One completion's score; spread and members where an ensemble gave it."""

    score: float
    spread: float | None = None
    """Standard deviation over the members, in the score's units."""
    members: tuple[float, ...] = ()
    """What each member says, on the score's scale."""
    axes: tuple[float, ...] = ()
    """What each axis of a model of several says, standardised."""
    was_cut: bool = False
    """Its text was too long for the model's tokenizer, and was read cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One model of an ensemble."""

    directory: str
    """Relative to the ensemble's."""
    mean: float
    deviation: float
    """Of its scores over the anchors, in its own units."""
    nats: float
    """Of preference per unit of its scores: its own ScoreScale's deviation."""
    sha256: str
    """policy.data.content_hash of the directory, so that the manifest's hash is the ensemble's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """What ensemble.json holds."""

    rule: str
    uncertainty_weight: float
    members: tuple[Member, ...]
    scale: ScoreScale
    """Of the combined scores; those as combined are in nats. Its axes are those that all members
    have: their scores are shown beside the score, which is not made of them."""

    def __post_init__(self) -> None:
        require(self.rule in RULES, f"rule must be one of {', '.join(RULES)}: {self.rule!r}")
        require(
            self.uncertainty_weight >= 0,
            f"uncertainty_weight must be >= 0: {self.uncertainty_weight}",
        )
        require(
            0 < self.scale.deviation < math.inf,
            f"combined, the members give all anchors one score: deviation {self.scale.deviation}",
        )
        require(len(self.members) >= 2, f"an ensemble has two members or more: {self.members}")
        for member in self.members:
            require(
                math.isfinite(member.mean) and 0 < member.deviation < math.inf,
                f"{member.directory} gives all answers one score, or none that is a number: mean "
                f"{member.mean}, deviation {member.deviation}",
            )

    @property
    def nats(self) -> float:
        """Of preference per standardised unit: the members' mean."""
        return sum(member.deviation * member.nats for member in self.members) / len(self.members)

    def combine(self, scores: Tensor) -> list[Scored]:
        """(M, N) scores as the members gave them -> one per completion, on the ensemble's scale.

        The rule works on standardised scores. Its result has mean 0 and deviation 1 on the anchors
        as a single model's has (policy/score_scale.py), so a KL coefficient keeps its meaning.
        """
        means = torch.tensor([m.mean for m in self.members], dtype=torch.float64)
        deviations = torch.tensor([m.deviation for m in self.members], dtype=torch.float64)
        standard = (scores.double() - means[:, None]) / deviations[:, None]  # (M, N)
        combined = combine(standard, self.rule, uncertainty_weight=self.uncertainty_weight)  # (N,)
        spread = standard.std(0, correction=0) * self.nats / self.scale.deviation  # (N,)
        scored, members = (
            (self.nats * each - self.scale.mean) / self.scale.deviation
            for each in (combined, standard.T)
        )
        return [
            Scored(score, width, tuple(own))
            for score, width, own in zip(
                scored.tolist(), spread.tolist(), members.tolist(), strict=True
            )
        ]

    def combine_axes(self, standard: Tensor) -> list[tuple[float, ...]]:
        """(M, N, A) standardised axes of the members -> for each completion one of each axis.

        By the same rule, which doubts what an axis adds to the score: of one that counts against an
        answer the worst is the highest.
        """
        signs = torch.tensor(
            [-1.0 if axis.weight < 0 else 1.0 for axis in self.scale.axes], dtype=torch.float64
        )
        turned = signs * standard.double()
        found = combine(turned, self.rule, uncertainty_weight=self.uncertainty_weight)  # (N, A)
        return [tuple(row) for row in (signs * found).tolist()]

    def save(self, directory: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        (directory / MANIFEST).write_text(text, encoding="utf-8")


def combine(standard: Tensor, rule: str, *, uncertainty_weight: float) -> Tensor:
    """(M, ...) standardised scores -> (...), by one of RULES.

    `worst` is the paper's worst-case optimisation, `uncertainty` its uncertainty-weighted one:
    mean - weight x mean squared distance from that mean (arXiv:2310.02743).
    """
    if rule == "worst":
        return standard.amin(0)
    mean = standard.mean(0)
    if rule == "mean":
        return mean
    return mean - uncertainty_weight * standard.var(0, correction=0)


def standard_of(scores: Sequence[float]) -> tuple[float, float]:
    """(mean, population standard deviation)."""
    values = torch.tensor(scores, dtype=torch.float64)
    return values.mean().item(), values.std(correction=0).item()


def is_ensemble(directory: Path | str) -> bool:
    return (Path(directory) / MANIFEST).is_file()


def load_ensemble(directory: Path | str) -> Ensemble:
    """The manifest of an ensemble's directory. Raises BadInput where it cannot be read."""
    path = Path(directory) / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        members = tuple(Member(**member) for member in found["members"])
        return Ensemble(
            rule=found["rule"],
            uncertainty_weight=found["uncertainty_weight"],
            members=members,
            scale=ScoreScale.from_json(found["scale"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def first_member(directory: Path | str) -> Path | str:
    """The directory of one model: an ensemble's first member, any other directory itself."""
    if not is_ensemble(directory):
        return directory
    return first_member(Path(directory) / load_ensemble(directory).members[0].directory)
