"""How many comparisons are missing, and when the next ones are written."""

from datetime import timedelta
from itertools import takewhile

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

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
    TrainingJob,
)
from annotation.permissions import LABEL
from annotation.services import versions
from annotation.services.jobs import request_training
from annotation.services.projects import lock_project
from annotation.services.walk import WALKED
from workers.planning import shares_of_splits

TOP_UP_BELOW = 0.75
"""Share of open_target at which the next comparisons are written, so that they come in batches."""
RETRY_SECONDS = 60
"""From a sample job in vain to the next one; doubled with each more in a row."""
MAX_DOUBLINGS = 6
"""So about an hour at most."""


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
    splits = [split for kind in shares_of_splits(project) for split in kind]
    num_prompts = Prompt.objects.filter(project=project, split__in=splits).count()
    if num_prompts == 0:
        return False
    in_vain = list(takewhile(lambda job: _in_vain(job, policy), ended[: MAX_DOUBLINGS + 1]))
    if not in_vain:
        return True
    last = in_vain[0]
    if last.status == JobStatus.DONE:
        if len(set(last.inputs["planned"])) >= num_prompts:
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
