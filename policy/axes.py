"""Several axes in one reward model: a head for each, and one score from all by recorded weights.

The model is one of `AutoModelForSequenceClassification` with a label per axis; a logit is nats of
preference on its axis. Zero and spread of the heads differ, so each is standardised before they are
added: z = (logit - mean) / deviation, over the anchors. N = completions, A = axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One head: how it counts, and its logits' mean and deviation; 0 and 1 add them as trained."""

    name: str
    weight: float
    mean: float = 0.0
    deviation: float = 1.0


def standardised(logits: Tensor, axes: Sequence[Axis]) -> Tensor:
    """(N, A) float64: each axis with mean 0 and deviation 1 on the anchors."""
    means = torch.tensor([axis.mean for axis in axes], dtype=torch.float64)
    deviations = torch.tensor([axis.deviation for axis in axes], dtype=torch.float64)
    return (logits.double() - means) / deviations


def weighted_sum(logits: Tensor, axes: Sequence[Axis]) -> Tensor:
    """(N, A) logits -> (N,) float64: the weighted sum of the standardised axes, in nats.

    A unit of it is worth the heads' deviations in nats, averaged by the size of their weights.
    """
    weights = torch.tensor([axis.weight for axis in axes], dtype=torch.float64)
    deviations = torch.tensor([axis.deviation for axis in axes], dtype=torch.float64)
    nats = (weights.abs() * deviations).sum() / weights.abs().sum()
    return nats * (standardised(logits, axes) @ weights)


def measured(logits: Tensor, weights: Mapping[str, float]) -> tuple[Axis, ...]:
    """The axes, in order, with mean and deviation of their logits; logits: (N, A) of the anchors.

    A head that says nearly the same of all anchors keeps a deviation of 1.
    """
    found = []
    for (name, weight), column in zip(weights.items(), logits.double().T, strict=True):
        mean, deviation = column.mean().item(), column.std(correction=0).item()
        flat = deviation <= 1e-6 * max(1.0, abs(mean))
        found.append(
            Axis(name=name, weight=weight, mean=mean, deviation=1.0 if flat else deviation)
        )
    return tuple(found)


def shared(axes: Sequence[Sequence[Axis]]) -> tuple[Axis, ...]:
    """Axes of several models as one's that are standardised already, with the means of their
    weights and deviations; none where the models do not have the same."""
    if any([axis.name for axis in own] != [axis.name for axis in axes[0]] for own in axes):
        return ()
    return tuple(
        Axis(
            name=column[0].name,
            weight=fmean(axis.weight for axis in column),
            deviation=fmean(axis.deviation for axis in column),
        )
        for column in zip(*axes, strict=True)
    )


def name_heads(config: Any, names: Sequence[str]) -> None:
    """Give a Hugging Face config a label for each axis; without axes one, of no name."""
    config.num_labels = max(1, len(names))
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
