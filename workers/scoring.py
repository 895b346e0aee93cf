"""Scores of open comparisons by the reward model in force, for the strategies that go by them."""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import pstdev

from annotation.models import Comparison, Completion, Project, Slot
from annotation.services import versions
from annotation.services.scores import record_scores, unscored
from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from policy.scoring import Scorer, TooLong
from workers.generation import MODELS, text_messages

COMPARISONS_AT_ONCE = 128
"""Of one task; the next tick sends another while some are left."""


def score_open_comparisons(project_id: int) -> int:
    """Score what is open and has no score of the version in force; returns how many comparisons."""
    project = Project.objects.get(pk=project_id)
    reward = versions.in_force(project, Slot.REWARD)
    if reward is None:
        return 0
    waiting = list(unscored(project, reward).select_related("prompt")[:COMPARISONS_AT_ONCE])
    if not waiting:
        return 0
    scorer = MODELS.scorer(reward)
    for comparison in waiting:
        scored = _scored(scorer, comparison)
        record_scores(
            comparison,
            reward,
            {pk: each and each.score for pk, each in scored.items()},
            {pk: each and each.spread for pk, each in scored.items()},
            disagreement([each and each.members for each in scored.values()], scorer.scale),
        )
    return len(waiting)


def disagreement(members: Sequence[Sequence[float] | None], scale: ScoreScale) -> float | None:
    """How far the members of an ensemble part on a comparison: the standard deviation over them of
    the probability that one completion is the better, of the two where it is greatest.

    members: per completion, what each member says, on the score's scale. In [0, 0.5]; 0 where all
    are equally sure of the same order, however sure. None without an ensemble, or where a
    completion has no score. The members' variance of arXiv:1706.03741, section 2.2.4.
    """
    known = [each for each in members if each]
    if len(known) < len(members):
        return None
    nats = scale.deviation / scale.temperature
    return max(
        pstdev(_probability(nats * (a - b)) for a, b in zip(one, other, strict=True))
        for one, other in combinations(known, 2)
    )


def _probability(nats: float) -> float:
    """Of the better one, by ScoreScale's formula; 1 / (1 + e^-x) without its overflow."""
    return 0.5 * (1.0 + math.tanh(nats / 2))


def _scored(scorer: Scorer, comparison: Comparison) -> dict[int, Scored | None]:
    """Completion -> score; None where there is none to be had."""
    texts = dict(
        Completion.objects.filter(entries__comparison=comparison).values_list("pk", "text")
    )
    prompt = text_messages(comparison.prompt)
    if prompt is None:
        return dict.fromkeys(texts)
    try:
        rows = [scorer.encode(prompt, text).ids for text in texts.values()]
    except TooLong:
        return dict.fromkeys(texts)
    return dict(zip(texts, scorer.scored_ids(rows), strict=True))
