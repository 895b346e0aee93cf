"""How many comparisons are missing, and for which prompts the next ones are written."""

import random

from annotation.models import (
    Comparison,
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Project,
    Prompt,
    Slot,
    Split,
    TrainingJob,
)
from annotation.services import versions
from annotation.services.jobs import request_training

TOP_UP_BELOW = 0.75
"""Share of open_target at which the next comparisons are written, so that they come in batches."""


def open_comparisons(project: Project) -> int:
    """Comparisons that still want an answer."""
    return Comparison.objects.open().filter(project=project).count()


def request_top_up(project: Project) -> TrainingJob | None:
    """Queue a sample job where too few comparisons are open and one could help."""
    target, policy = project.open_target, versions.in_force(project, Slot.POLICY)
    if not target or policy is None:
        return None
    count = open_comparisons(project)
    if count > TOP_UP_BELOW * target:
        return None
    sampled = TrainingJob.objects.filter(project=project, kind=JobKind.SAMPLE, lane=Lane.LOOP)
    if sampled.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING)).exists():
        return None
    last = sampled.exclude(status=JobStatus.CANCELLED).order_by("-pk").first()
    if last is not None and _would_do_nothing_again(last, policy, project):
        return None
    return request_training(
        project=project, kind=JobKind.SAMPLE, reason=f"{count} of {target} comparisons are open"
    )


def _would_do_nothing_again(last: TrainingJob, policy: ModelVersion, project: Project) -> bool:
    """The last sample job of this policy failed or had nothing new to say about these prompts."""
    if last.init_id != policy.pk:
        return False
    if last.status == JobStatus.FAILED:
        return True
    return last.result.get("comparisons") == 0 and last.result.get("prompts") == (
        Prompt.objects.filter(project=project).count()
    )


def plan_prompts(project: Project, *, count: int, seed: int) -> list[int]:
    """Ids of the prompts to write for: `count`, or fewer where the project has fewer.

    Each is of a held-out split with probability heldout_share, else of train. Within a split they
    are drawn uniformly, those without an open comparison first.
    """
    rng = random.Random(seed)
    heldout = _shuffled(project, [Split.DEV, Split.TEST], rng)
    train = _shuffled(project, [Split.TRAIN], rng)
    planned = []
    for _ in range(count):
        pool = heldout if rng.random() < project.heldout_share else train
        if pool:
            planned.append(pool.pop())
    return planned


def _shuffled(project: Project, splits: list[Split], rng: random.Random) -> list[int]:
    """Ids of the prompts of these splits in random order, to be taken from the end."""
    ids = list(
        Prompt.objects.filter(project=project, split__in=splits)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    busy = set(
        Comparison.objects.open().filter(project=project).values_list("prompt_id", flat=True)
    )
    rng.shuffle(ids)
    return sorted(ids, key=lambda pk: pk not in busy)
