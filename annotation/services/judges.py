"""The judge of a round: a reward model of other groups and other seeds, which rewards nobody.

It is asked for as a reward job of the loop starts. Where Concord pretrained what the reward model
starts from, the judge starts from a model that was pretrained with another seed: made once, for
reward models of one trunk share what that trunk gets wrong (arXiv:2312.09244).
"""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from annotation.group_shares import JUDGE, REWARD, GroupShare, are_disjoint
from annotation.models import (
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Preference,
    Project,
    Purpose,
    Split,
    TrainingJob,
)
from annotation.services.jobs import request_training

SHARE = 0.25
"""Of the train groups, unless a job's inputs say `judge_share`."""
FEWEST_GROUPS = 1000
"""Train groups with answers from which on a project has a judge by itself. A quarter of them is the
least that tells policies apart; below it the reward model needs every group."""
SEED = 0
"""Of the split, which never changes: a group that a reward model saw once more than before would
be lost to every judge."""
NO_GROUPS = "A judge learns from groups that the reward model goes without, and there are none."
SEEDS_APART = 1000
"""From a seed of the reward model's line to the judge's."""


def share_for(job: TrainingJob) -> float:
    """The share of groups that the judge gets, beside a reward job or for a judge's own."""
    if "judge_share" in job.inputs:
        return float(job.inputs["judge_share"])
    return SHARE if num_groups(job.project) >= FEWEST_GROUPS else 0.0


def num_groups(project: Project) -> int:
    """Train groups with valid answers that reward models learn from."""
    answers = Preference.objects.valid().filter(
        project=project,
        comparison__purpose__in=(Purpose.PRODUCTION, Purpose.LIVE),
        comparison__prompt__split=Split.TRAIN,
    )
    return answers.order_by().values("comparison__prompt__split_group").distinct().count()


def groups_for(job: TrainingJob) -> GroupShare | None:
    """What a reward or judge job learns from; None = all groups."""
    share = share_for(job)
    side = JUDGE if job.kind == JobKind.JUDGE else REWARD
    return GroupShare(side=side, judge_share=share, seed=SEED) if share else None


def saw_other_groups(judge: ModelVersion, reward: ModelVersion) -> bool:
    """Whether it is certain that no train group taught both."""
    return are_disjoint(_groups_of(reward), _groups_of(judge))


def _groups_of(version: ModelVersion) -> GroupShare | None:
    return GroupShare.of(version.snapshot.query.get("groups")) if version.snapshot else None


@transaction.atomic
def request_judge(*, beside: TrainingJob) -> TrainingJob | None:
    """Queue the judge of a reward job that has chosen its start and its share; None if the job is
    no part of the loop, has no share to give, or the same judge waits already."""
    if beside.lane != Lane.LOOP or not share_for(beside):
        return None
    wish: dict[str, Any] = {
        "config": _with_other_seed(beside.config),
        "inputs": beside.inputs,
        "init": beside.init,
    }
    waiting = TrainingJob.objects.filter(
        project=beside.project, kind=JobKind.JUDGE, lane=Lane.LOOP, status=JobStatus.QUEUED
    )
    if waiting.filter(**wish).exists():
        return None
    pretrained = pretrained_root(beside.init)
    if pretrained and pretrained.job and not _pretrainings_beside(pretrained).exists():
        _request_pretraining(beside.project, pretrained, pretrained.job)
    return request_training(
        project=beside.project,
        kind=JobKind.JUDGE,
        reason=f"the judge of reward job {beside.pk}",
        **wish,
    )


def _request_pretraining(project: Project, version: ModelVersion, job: TrainingJob) -> None:
    """The same pretraining once more, with another seed, on the files that the first one copied."""
    again = request_training(
        project=project,
        kind=JobKind.PRETRAIN,
        lane=Lane.EXPERIMENT,
        config=_with_other_seed(job.config),
        reason=f"where judges start, beside {version.name}",
    )
    again.inputs = {"judge_of": job.pk}
    again.save(update_fields=["inputs"])


def start_of(start: ModelVersion | None) -> ModelVersion | None:
    """The judge's own pretrained model in place of the reward model's start, where there is one."""
    pretrained = pretrained_root(start)
    if pretrained is None:
        return start
    own = ModelVersion.objects.filter(job__in=_pretrainings_beside(pretrained))
    return own.order_by("-pk").first() or start


def pretrained_root(version: ModelVersion | None) -> ModelVersion | None:
    """The pretrained version of Concord's own that a version descends from."""
    while version is not None and version.stage != JobKind.PRETRAIN:
        version = version.init
    return version


def _pretrainings_beside(version: ModelVersion) -> Any:
    return TrainingJob.objects.filter(kind=JobKind.PRETRAIN, inputs__judge_of=version.job_id)


def _with_other_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    seed = config.get("seed", 0)
    if type(seed) is not int:
        return dict(config)  # the trainer says what is wrong with it
    return {**config, "seed": seed + SEEDS_APART}
