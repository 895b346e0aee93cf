"""The last thing that training does: scores on the anchors' scale, a temperature, dev's figures."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from policy.axes import Axis, measured, weighted_sum
from policy.comparisons import Comparison
from policy.config import require
from policy.score_scale import ScoreScale, fold
from policy.scoring import Scorer, TooLong, max_tokens_of
from rewardmodel.anchors import Anchors
from rewardmodel.calibration import fit_temperature, reliability
from rewardmodel.diagnostics import ceiling
from rewardmodel.evaluate import Evaluation

NUM_TRIED = 16
"""Anchors that are scored again to see whether a fold holds: it holds of all texts or of none."""


def normalise(
    model: Any,
    tokenizer: Any,
    *,
    anchors: Anchors | None,
    dev: Iterable[Comparison],
    axis_weights: Mapping[str, float] | None = None,
    scorer_of: Callable[..., Scorer] = Scorer,
) -> ScoreScale:
    """Give the model its ScoreScale, in its weights and in its config; returns it.

    anchors: None leaves the scores as trained. axis_weights: in the score, of a model with a head
    for each axis. dev: the rows that the temperature is fitted on and
    the accuracy and its interval are measured on; they move no weight. scorer_of: called as Scorer
    is, for one that may know scores without the model.
    """
    max_tokens = max_tokens_of(model, tokenizer)
    scale = scale_of_axes(None, axis_weights) if axis_weights else ScoreScale()
    if anchors is not None:
        scorer = scorer_of(model, tokenizer, max_tokens=max_tokens)
        ids = anchor_ids(scorer, anchors)
        if len(ids) >= 2 and axis_weights:
            scale = scale_of_axes(scorer.heads(ids), axis_weights)
        elif len(ids) >= 2:
            probe = Scorer(model, tokenizer, max_tokens=max_tokens)
            scale = fold(model, scorer.score_ids(ids), lambda: probe.score_ids(ids[:NUM_TRIED]))
        scale = replace(scale, anchors_sha256=anchors.sha256, num_anchors=len(ids))
    scale.keep_in(model)
    scale = with_dev(scale, scorer_of(model, tokenizer, max_tokens=max_tokens), dev)
    scale.keep_in(model)
    return scale


def scale_of_axes(heads: Tensor | None, weights: Mapping[str, float]) -> ScoreScale:
    """Each axis standardised on the anchors, and then their weighted sum; heads: (N, A) logits of
    the anchors, or None where the logits are added as they are."""
    if heads is None:
        return ScoreScale(axes=tuple(Axis(name=name, weight=weights[name]) for name in weights))
    axes = measured(heads, weights)
    combined = weighted_sum(heads, axes)
    mean, deviation = combined.mean().item(), combined.std(correction=0).item()
    require(deviation > 0, f"the weighted sum of {', '.join(weights)} is one number on all anchors")
    return ScoreScale(mean=mean, deviation=deviation, folded="axes", axes=axes)


def with_dev(scale: ScoreScale, scorer: Scorer, dev: Iterable[Comparison]) -> ScoreScale:
    """The scale with the temperature and the figures that dev asks for; as it is without dev."""
    evaluation = Evaluation.of(scorer, dev)
    points = evaluation.answers()
    if not points:
        return scale
    temperature = fit_temperature(points)
    figures = evaluation.figures()
    names = ("n", "num_groups", "accuracy", "accuracy_interval", "log_loss")
    told = {name: figures[name] for name in names}
    told["calibrated_log_loss"] = points.log_loss(temperature)
    told["ece"] = reliability(points).ece
    told["calibrated_ece"] = reliability(points, temperature=temperature).ece
    if "axes" in figures:
        told["axes"] = figures["axes"]
    if (several := ceiling(evaluation)) is not None:
        told["human_accuracy"] = several["human"]
    return replace(scale, temperature=temperature, dev=told)


def anchor_ids(scorer: Scorer, anchors: Anchors) -> list[list[int]]:
    """The anchors as ids; those too long for the model are passed over."""
    return list(encoded_anchors(scorer, anchors).values())


def encoded_anchors(scorer: Scorer, anchors: Anchors) -> dict[str, list[int]]:
    """`anchor_ids` by the hashes of the anchors."""
    found = {}
    for anchor in anchors.items:
        try:
            found[anchor.sha256] = scorer.encode(anchor.prompt, anchor.text).ids
        except TooLong:
            continue
    return found
