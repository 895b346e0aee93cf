"""The judge of a round: a reward model of other groups and other seeds, which rewards nobody.

It is asked for as a reward job of the loop starts. Where Concord pretrained what the reward model
starts from, the judge starts from a model that was pretrained with another seed: made once, for
reward models of one trunk share what that trunk gets wrong (arXiv:2312.09244).
"""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from annotation.group_shares import JUDGE, REWARD, GroupShare, are_disjoint
from annotation.models import (
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Outcome,
    Preference,
    Project,
    Purpose,
    Split,
    TrainingJob,
)
from annotation.services.inputs import NO_INIT
from annotation.services.jobs import request_training
from annotation.services.retraining import votes_that_train
from annotation.services.versions import sft_root

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
    return SHARE if num_groups(job) >= FEWEST_GROUPS else 0.0


def num_groups(job: TrainingJob) -> int:
    """Train groups with valid answers that the job learns from: of the kinds of annotators that its
    inputs say, and with one completion above another on some axis."""
    answers = Preference.objects.valid().filter(
        project=job.project,
        annotator__kind__in=votes_that_train(job.inputs),
        rankings__outcome=Outcome.RANKED,
        rankings__groups__1__isnull=False,
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
    no part of the loop, has no share to give, or the same judge waits already.

    What the project's defaults say of judges goes before what the reward job does, but for the
    share: the judge's groups are those that the reward model goes without.
    """
    share = share_for(beside)
    if beside.lane != Lane.LOOP or not share:
        return None
    defaults = beside.project.job_defaults
    of_judges = defaults.get("inputs", {}).get(JobKind.JUDGE, {})
    config = _with_other_seed(beside.config) | defaults.get(JobKind.JUDGE, {})
    inputs = beside.inputs | of_judges | {"judge_share": share}
    waiting = TrainingJob.objects.filter(
        project=beside.project,
        kind=JobKind.JUDGE,
        lane=Lane.LOOP,
        status=JobStatus.QUEUED,
        init=beside.init,
    )
    if (config, inputs) in waiting.values_list("config", "inputs"):
        return None
    judge = request_training(
        project=beside.project,
        kind=JobKind.JUDGE,
        config=config,
        inputs=inputs,
        init=beside.init,
        reason=f"the judge of reward job {beside.pk}",
    )
    request_own_start(judge)
    return judge


def request_own_start(judge: TrainingJob) -> None:
    """Queue the pretraining that a judge starts from, where it needs one that is neither there nor
    in the making; one that failed or was cancelled is asked for again."""
    pretrained = pretrained_root(start_beside(judge))
    if pretrained is None or pretrained.job is None:
        return
    beside = _pretrainings_beside(pretrained, judge.project)
    if not beside.exclude(status__in=(JobStatus.FAILED, JobStatus.CANCELLED)).exists():
        _request_pretraining(judge.project, pretrained, pretrained.job)


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


def start_beside(job: TrainingJob) -> ModelVersion | None:
    """What a reward job starts from, and its judge where it has no pretrained model of its own;
    None = random weights."""
    from_nothing = job.inputs.get("init") == NO_INIT
    return None if from_nothing else job.init or sft_root(job.project)


def start_of(start: ModelVersion | None, project: Project) -> ModelVersion | None:
    """The judge's own pretrained model in place of the reward model's start, where there is one."""
    pretrained = pretrained_root(start)
    if pretrained is None:
        return start
    own = ModelVersion.objects.filter(job__in=_pretrainings_beside(pretrained, project))
    return own.order_by("-pk").first() or start


def pretrained_root(version: ModelVersion | None) -> ModelVersion | None:
    """The pretrained version of Concord's own that a version descends from."""
    while version is not None and version.stage != JobKind.PRETRAIN:
        version = version.init
    return version


def has_other_trunk(judge: ModelVersion, reward: ModelVersion) -> bool:
    """Whether it is certain that the two began with random weights of their own, by other seeds."""
    of_judge, of_reward = _origin(judge).job, _origin(reward).job
    if of_judge is None or of_reward is None:
        return False
    return bool(of_judge.config.get("seed", 0) != of_reward.config.get("seed", 0))


def _origin(version: ModelVersion) -> ModelVersion:
    while version.init is not None:
        version = version.init
    return version


def _pretrainings_beside(version: ModelVersion, project: Project) -> QuerySet[TrainingJob]:
    """In this project, for its judges wait for no other's."""
    return TrainingJob.objects.filter(
        project=project, kind=JobKind.PRETRAIN, inputs__judge_of=version.job_id
    )


def _with_other_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    seed = config.get("seed", 0)
    if type(seed) is not int:
        return dict(config)  # the trainer says what is wrong with it
    return {**config, "seed": seed + SEEDS_APART}
