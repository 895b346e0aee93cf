"""How many comparisons are missing, and for which prompts the next ones are written."""

import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import takewhile

import numpy as np
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from scipy.stats import binom

from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Comparison,
    JobKind,
    JobStatus,
    Lane,
    Membership,
    ModelVersion,
    Project,
    Prompt,
    Role,
    Slot,
    Split,
    TrainingJob,
)
from annotation.permissions import LABEL
from annotation.services import versions
from annotation.services.jobs import request_training
from annotation.services.projects import lock_project
from annotation.services.walk import WALKED

TOP_UP_BELOW = 0.75
"""Share of open_target at which the next comparisons are written, so that they come in batches."""
RETRY_SECONDS = 60
"""From a sample job in vain to the next one; doubled with each more in a row."""
MAX_DOUBLINGS = 6
"""So about an hour at most."""
HELDOUT, TRAIN = (Split.DEV, Split.TEST), (Split.TRAIN,)


def open_comparisons(project: Project) -> int:
    """Comparisons that still want an answer, but for those that all who label are through with.

    A comparison that everybody skipped stays open for whoever joins later; nobody who is here can
    take it. Labelers count from the start, reviewers and admins once they took a comparison;
    languages and skills are not looked at.
    """
    finished = Assignment.objects.filter(
        state__in=(AssignmentState.ANSWERED, AssignmentState.SKIPPED)
    )
    by_member = finished.filter(
        comparison=OuterRef(OuterRef("pk")), annotator__user=OuterRef("user")
    )
    has_labeled = Annotator.objects.filter(project=OuterRef("project"), user=OuterRef("user"))
    could_take = Membership.objects.filter(
        Q(role=Role.LABELER) | Exists(has_labeled),
        ~Exists(by_member),
        project=project,
        role__in=LABEL,
    )
    by_anyone = finished.filter(comparison=OuterRef("pk"))
    still_open = Comparison.objects.open().filter(project=project, purpose__in=WALKED)
    return still_open.filter(~Exists(by_anyone) | Exists(could_take)).count()


@transaction.atomic
def request_top_up(project: Project) -> TrainingJob | None:
    """Queue a sample job where too few comparisons are open and one could help; one, however many
    ticks come at once."""
    lock_project(project)
    target, policy = project.open_target, versions.in_force(project, Slot.POLICY)
    if not target or policy is None:
        return None
    count = open_comparisons(project)
    if count > TOP_UP_BELOW * target:
        return None
    sampled = TrainingJob.objects.filter(project=project, kind=JobKind.SAMPLE, lane=Lane.LOOP)
    if sampled.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING)).exists():
        return None
    ended = sampled.exclude(status=JobStatus.CANCELLED).order_by("-pk")
    if not _could_help(ended, policy, project):
        return None
    return request_training(
        project=project, kind=JobKind.SAMPLE, reason=f"{count} of {target} comparisons are open"
    )


def _could_help(ended: QuerySet[TrainingJob], policy: ModelVersion, project: Project) -> bool:
    """Whether the next sample job may be tried now, after those that ended, newest first.

    Not where there is no prompt, or the policy was asked about every prompt and had nothing new to
    say: that takes another policy or prompt. After other jobs in vain the next one waits, longer
    each time; only the first unlucky draw of prompts is drawn again at once.
    """
    num_prompts = Prompt.objects.filter(
        project=project, split__in=[split for splits in _shares(project) for split in splits]
    ).count()
    if num_prompts == 0:
        return False
    in_vain = list(takewhile(lambda job: _in_vain(job, policy), ended[: MAX_DOUBLINGS + 1]))
    if not in_vain:
        return True
    last = in_vain[0]
    if last.status == JobStatus.DONE:
        if len(last.inputs["planned"]) >= num_prompts:
            return False
        if len(in_vain) == 1:
            return True
    since = timezone.now() - (last.finished_at or last.requested_at)
    return since >= timedelta(seconds=RETRY_SECONDS * 2 ** (len(in_vain) - 1))


def _in_vain(job: TrainingJob, policy: ModelVersion) -> bool:
    """The job failed, or all that this policy wrote in it made no new comparison.

    One that planned no prompt found enough comparisons open, which says nothing of the policy.
    """
    if job.init_id not in (policy.pk, None):
        return False
    if job.status == JobStatus.FAILED:
        return True
    return bool(job.inputs.get("planned")) and job.result.get("comparisons") == 0


def plan_prompts(project: Project, *, count: int, seed: int) -> list[int]:
    """Ids of the prompts to write for: `count`, or fewer where the project has fewer.

    Each is of a held-out split with probability heldout_share, else of train; where a project has
    prompts of one kind alone, all are of that kind, unless its share is 0. Within a kind they are
    drawn uniformly, those without an open comparison first.
    """
    rng = random.Random(seed)
    drawn = [(_shuffled(project, splits, rng), share) for splits, share in _shares(project).items()]
    pools = [pool for pool, _ in drawn if pool]
    if not pools:
        return []
    shares = [share for pool, share in drawn if pool]
    chosen = rng.choices(pools, weights=shares, k=count)
    return [pool.pop() for pool in chosen if pool]


def propensities(project: Project, planned: Sequence[int], *, count: int) -> list[float]:
    """How likely plan_prompts(project, count=count) was to choose each of the prompts it did.

    The number k of draws that fall on a kind of splits is binomial. Of the kind's prompts those
    without an open comparison (n of them) come first, m follow, so one of the first is chosen with
    probability E min(k, n) / n, one of the others with E min(max(k - n, 0), m) / m.
    """
    kinds = {
        splits: share
        for splits, share in _shares(project).items()
        if Prompt.objects.filter(project=project, split__in=splits).exists()
    }
    busy = _busy(project)
    found: dict[int, float] = {}
    draws = np.arange(count + 1)
    for splits, share in kinds.items():
        ids = Prompt.objects.filter(project=project, split__in=splits).values_list("pk", flat=True)
        later = [pk for pk in ids if pk in busy]
        first = [pk for pk in ids if pk not in busy]
        chances = binom.pmf(draws, count, share / sum(kinds.values()))
        for group, before in ((first, 0), (later, len(first))):
            expected = chances @ np.clip(draws - before, 0, len(group))
            found |= {pk: float(expected / len(group)) for pk in group}
    return [found[pk] for pk in planned]


def _shares(project: Project) -> dict[tuple[Split, ...], float]:
    """Kinds of splits that comparisons are to be written for, and how often each."""
    shares = {HELDOUT: project.heldout_share, TRAIN: 1 - project.heldout_share}
    return {splits: share for splits, share in shares.items() if share > 0}


def _shuffled(project: Project, splits: tuple[Split, ...], rng: random.Random) -> list[int]:
    """Ids of the prompts of these splits in random order, to be taken from the end."""
    ids = list(
        Prompt.objects.filter(project=project, split__in=splits)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    busy = _busy(project)
    rng.shuffle(ids)
    return sorted(ids, key=lambda pk: pk not in busy)


def _busy(project: Project) -> set[int]:
    """Prompts with an open comparison."""
    still_open = Comparison.objects.open().filter(project=project)
    return set(still_open.values_list("prompt_id", flat=True))
