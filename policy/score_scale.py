"""What the scores of a reward model mean: kept in its config.json, applied by policy.scoring.

A trained head has whatever zero and spread it came to. After training its scores are given mean 0
and deviation 1 on fixed anchor texts, so that a KL coefficient means the same against every reward
model of a project (gain and bias of arXiv:1909.08593, section 2). The affine map lies in the
weights where the architecture allows, and then any library computes the same scores:

- the factor in the head's matrix;
- the shift in the head's own bias (encoders), or in the bias of the LayerNorm before a head that
  has none (GPT-2, OPT, GPT-NeoX): moving it by -mean w / |w|^2 moves every score by -mean;
- an RMSNorm has no bias: the shift stays in config.json, and only policy.scoring adds it.

The heads of several axes (policy/axes.py) stay as trained; how they become one score stands here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from policy.axes import Axis, standardised, weighted_sum

KEY = "concord_scores"
"""The record's name in config.json."""

FEWEST_GROUPS = 20
"""With fewer groups on dev no accuracy says anything."""

SAME_SCORE = 1e-3
"""A fold is kept if the scores it gives lie this close to the wanted ones, in deviations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreScale:
    """P(a over b) = sigmoid(deviation x (score a - score b) / temperature)."""

    mean: float = 0.0
    """Of the scores as trained, on the anchors."""
    deviation: float = 1.0
    """Of the same scores, dividing by their number: nats of preference per unit of score."""
    shift: float = 0.0
    """Added to what the weights say; 0 where they hold it."""
    folded: str = "nothing"
    """Where the shift lies: bias, layer_norm or config; nothing = scores are as trained; axes = the
    weighted sum has the mean and deviation above, which policy.scoring takes out."""
    temperature: float = 1.0
    """Fitted on dev; above 1 the model was too sure of itself."""
    anchors_sha256: str | None = None
    num_anchors: int = 0
    """Texts of the anchors that the model could take."""
    dev: Mapping[str, Any] | None = None
    """Figures on the dev split when training ended: n, num_groups, accuracy and its interval,
    log_loss and ece (ten bins of equal mass), both also calibrated_; human_accuracy, a vote's
    against the majority of the others, where several answered; axes by name. None where there was
    none."""
    axes: tuple[Axis, ...] = ()
    """Of a model with a head for each; in the order of its labels."""

    @classmethod
    def of(cls, model: Any) -> "ScoreScale":
        """The model's record; a model without one is read as it is."""
        return cls.from_json(getattr(model.config, KEY, None) or {})

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "ScoreScale":
        """What `asdict` wrote; keys of another version are passed over."""
        known = {field.name for field in fields(cls)} - {"axes"}
        axes = tuple(Axis(**axis) for axis in kept.get("axes", ()))
        return cls(**{name: value for name, value in kept.items() if name in known}, axes=axes)

    def scores(self, heads: Tensor) -> list[float]:
        """(N, A) logits as the model gives them -> its score of each completion."""
        if not self.axes:
            return [value + self.shift for value in heads.squeeze(1).tolist()]
        return ((weighted_sum(heads, self.axes) - self.mean) / self.deviation).tolist()

    def by_axis(self, heads: Tensor) -> list[tuple[float, ...]]:
        """Of each completion what each axis says, standardised; nothing where there are no axes."""
        if not self.axes:
            return [()] * len(heads)
        return [tuple(row) for row in standardised(heads, self.axes).tolist()]

    def keep_in(self, model: Any) -> None:
        """Write the record into the model's config, with which it is saved."""
        setattr(model.config, KEY, asdict(self))

    def figures(self) -> dict[str, float]:
        """For a run's metrics; a temperature only where there was a dev row to fit it on."""
        found = {"mean": self.mean, "deviation": self.deviation}
        if self.dev is None:
            return found
        measured = {
            f"dev_{name}": value
            for name, value in self.dev.items()
            if isinstance(value, int | float)
        }
        return found | {"temperature": self.temperature} | measured

    def why_weak(self) -> str | None:
        """A sentence where dev could not show that the model does better than a coin; None where it
        did, or has too few groups to say."""
        dev = self.dev or {}
        interval = dev.get("accuracy_interval")
        if interval is None or dev["num_groups"] < FEWEST_GROUPS or interval[0] > 0.5:
            return None
        return (
            f"its accuracy on dev is {dev['accuracy']:.3f} [{interval[0]:.3f}, {interval[1]:.3f}] "
            f"over {dev['num_groups']} groups, which may be a coin's"
        )


def forget(model: Any) -> None:
    """Drop the record of a model whose weights are about to change."""
    if hasattr(model.config, KEY):
        delattr(model.config, KEY)


@torch.no_grad()
def fold(model: Any, scores: Sequence[float], probe: Callable[[], Sequence[float]]) -> ScoreScale:
    """Give the model's scores mean 0 and deviation 1 on the anchors; the record of how.

    scores: the model's of the anchors. probe: of the first of them, some or all, by the weights as
    they stand when it is called: whether a fold does what it should is found by trying. A model
    that says nearly the same of all anchors, or whose head is no matrix of one row, is left as it
    is (`folded` nothing).
    """
    before = torch.tensor(scores, dtype=torch.float64)  # (N,)
    mean, deviation = before.mean().item(), before.std(correction=0).item()
    head = score_head(model)
    if head is None or not math.isfinite(mean) or deviation <= 1e-6 * max(1.0, abs(mean)):
        return ScoreScale()
    wanted = (before - mean) / deviation
    shift = -mean / deviation

    def gives(expected: Tensor) -> bool:
        found = torch.tensor(probe(), dtype=torch.float64)
        return (found - expected[: len(found)]).abs().max().item() <= SAME_SCORE

    kept = head.weight.clone(), None if head.bias is None else head.bias.clone()
    head.weight.div_(deviation)
    if head.bias is not None:
        head.bias.sub_(mean).div_(deviation)
    if not gives(wanted if head.bias is not None else wanted - shift):
        _put_back(head, *kept)  # something between head and score is not linear
        return ScoreScale()
    made = ScoreScale(mean=mean, deviation=deviation, folded="bias")
    if head.bias is not None:
        return made
    direction = head.weight[0].double()  # (D,)
    step = shift * direction / direction.square().sum()
    for norm in _last_norms(model, head.in_features):
        bias = norm.bias.clone()
        norm.bias.add_(step.to(norm.bias.dtype))
        if gives(wanted):
            return ScoreScale(mean=mean, deviation=deviation, folded="layer_norm")
        norm.bias.copy_(bias)
    return ScoreScale(mean=mean, deviation=deviation, shift=shift, folded="config")


def _put_back(head: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    head.weight.copy_(weight)
    if bias is not None:
        head.bias.copy_(bias)


def score_head(model: Any) -> nn.Linear | None:
    """The matrix that gives the score: the last one of one row outside the trunk."""
    trunk = model.base_model_prefix + "."
    heads = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith(trunk)
    ]
    return heads[-1] if heads else None


def _last_norms(model: Any, width: int) -> list[nn.LayerNorm]:
    """LayerNorms of the trunk that stand outside its layers: one of them may be the last."""
    return [
        module
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.LayerNorm)
        and module.bias is not None
        and module.normalized_shape == (width,)
        and not any(part.isdigit() for part in name.split("."))
    ]
