"""Scores of open comparisons by the reward model in force, for the strategies that go by them."""

from annotation.models import Comparison, Completion, Project, Slot
from annotation.services import versions
from annotation.services.scores import record_scores, unscored
from policy.ensemble import Scored
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
        )
    return len(waiting)


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
