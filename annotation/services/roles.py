"""What a reward-model version may serve as: a judge is never a reward, nor a reward a judge.

A policy learns to please whatever rewards it, so only a model that never did can say how much of
the gain is real. Once a version has been one of the two, it stays that.
"""

from django.db.models import Q
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import JobKind, JobStatus, ModelVersion, Promotion, Slot


def is_judge(version: ModelVersion) -> bool:
    """Made as a judge, or put in the judge's slot of some project."""
    return version.stage == JobKind.JUDGE or _stood_in(version, Slot.JUDGE)


def has_rewarded(version: ModelVersion) -> bool:
    """Put in the reward model's slot of some project, or a policy learned from it, learns or is to.

    A PPO job counts from its start on, whatever became of it.
    """
    meant = Q(status=JobStatus.QUEUED) | Q(started_at__isnull=False)
    return (
        _stood_in(version, Slot.REWARD)
        or version.rewarded_here.exists()
        or version.jobs_from_reward.filter(meant).exists()
    )


def lock_roles(version: ModelVersion) -> None:
    """Hold the version's row until the transaction ends, before asking what it is or was: who gives
    it the other part waits, and then sees this one."""
    ModelVersion.objects.select_for_update(no_key=True).get(pk=version.pk)


def require_no_judge(version: ModelVersion) -> None:
    """Raise BadInput for a judge that is to be a reward."""
    if is_judge(version):
        raise BadInput(
            gettext("%(version)s is a judge, and a judge is never a reward.") % {"version": version}
        )


def require_never_rewarded(version: ModelVersion) -> None:
    """Raise BadInput for a reward model that is to be a judge."""
    if has_rewarded(version):
        raise BadInput(
            gettext("%(version)s is or has been a reward, so it cannot be a judge.")
            % {"version": version}
        )


def may_stand_in(version: ModelVersion, slot: str) -> bool:
    """Whether a version of the slot's kind may be put in it."""
    if slot == Slot.REWARD:
        return not is_judge(version)
    return slot != Slot.JUDGE or not has_rewarded(version)


def _stood_in(version: ModelVersion, slot: str) -> bool:
    return Promotion.objects.filter(version=version, slot=slot).exists()
