"""The last thing that training does: scores on the anchors' scale, a temperature, dev's figures."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from policy.score_scale import ScoreScale, fold
from policy.scoring import Scorer, TooLong, max_tokens_of
from rewardmodel.anchors import Anchors
from rewardmodel.calibration import fit_temperature, reliability
from rewardmodel.data import Comparison
from rewardmodel.diagnostics import ceiling
from rewardmodel.evaluate import Evaluation


def normalise(
    model: Any, tokenizer: Any, *, anchors: Anchors | None, dev: Iterable[Comparison]
) -> ScoreScale:
    """Give the model its ScoreScale, in its weights and in its config; returns it.

    anchors: None leaves the scores as trained. dev: the rows that the temperature is fitted on and
    the accuracy and its interval are measured on; they move no weight.
    """
    max_tokens = max_tokens_of(model, tokenizer)
    scale = ScoreScale()
    if anchors is not None:
        ids = anchor_ids(Scorer(model, tokenizer, max_tokens=max_tokens), anchors)
        if len(ids) >= 2:
            probe = Scorer(model, tokenizer, max_tokens=max_tokens)
            scale = fold(model, lambda: probe.score_ids(ids))
        scale = replace(scale, anchors_sha256=anchors.sha256, num_anchors=len(ids))
    scale.keep_in(model)
    scale = with_dev(scale, Scorer(model, tokenizer, max_tokens=max_tokens), dev)
    scale.keep_in(model)
    return scale


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
