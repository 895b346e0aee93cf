"""Scores of the reward model in force, where a batch's strategy asks for them.

Workers score (they have the model); the ledger says what is to be scored and keeps what came out.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise

from django.db import transaction
from django.db.models import Q

from annotation.models import Comparison, CompletionScore, ModelVersion, Project, Slot
from annotation.models.comparisons import GOES_BY_SCORES, ComparisonQuerySet
from annotation.models.projects import BY_MODEL
from annotation.services.versions import in_force


def uncertainty(scores: list[float]) -> float:
    """How little a reward model tells two of the completions apart: minus the least gap between
    neighbours in the order of their scores, so at most 0. At least two scores."""
    ordered = sorted(scores)
    return -min(high - low for low, high in pairwise(ordered))


def unscored(project: Project, reward: ModelVersion) -> ComparisonQuerySet:
    """Open comparisons whose strategy needs scores and that this version has not scored."""
    other = Q(scored_by=None) | Q(scored_by__lt=reward.pk) | Q(scored_by__gt=reward.pk)
    return Comparison.objects.filter(
        other,
        GOES_BY_SCORES,
        project=project,
        open_slots__gt=0,
        retired_at__isnull=True,
    )


def projects_to_score() -> list[Project]:
    """Projects with a reward model in force that has something to score."""
    candidates = Project.objects.filter(batches__strategy__in=BY_MODEL).distinct()
    return [
        project
        for project in candidates
        if (reward := in_force(project, Slot.REWARD)) and unscored(project, reward).exists()
    ]


@transaction.atomic
def record_scores(
    comparison: Comparison,
    reward: ModelVersion,
    scores: Mapping[int, float | None],
    spreads: Mapping[int, float | None] | None = None,
    disagreement: float | None = None,
) -> None:
    """Keep the scores of a comparison's completions. None: the completion is too long for the
    model; the comparison is then left to chance. spreads: of an ensemble, by completion too;
    disagreement: how far its members part on the comparison."""
    spreads = spreads or {}
    known = {pk: score for pk, score in scores.items() if score is not None}
    CompletionScore.objects.bulk_create(
        (
            CompletionScore(
                completion_id=pk, model_version=reward, score=score, spread=spreads.get(pk)
            )
            for pk, score in known.items()
        ),
        ignore_conflicts=True,
    )
    told = uncertainty(list(known.values())) if len(known) == len(scores) else None
    Comparison.objects.filter(pk=comparison.pk).update(
        uncertainty=told, disagreement=disagreement, scored_by=reward
    )


def known_scores(reward: ModelVersion, completions: Collection[int]) -> dict[int, float]:
    """Completion -> what this version says of it, of those that it has scored."""
    if not completions:
        return {}
    # by their span: thousands of ids would be a slow query, and one that a database may refuse
    rows = CompletionScore.objects.filter(
        model_version=reward,
        completion__gte=min(completions),
        completion__lte=max(completions),
    )
    wanted = set(completions)
    return {pk: score for pk, score in rows.values_list("completion", "score") if pk in wanted}
