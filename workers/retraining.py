"""What the beat queues when it looks whether training is due."""

from django.db import transaction
from django.db.models import Q

from annotation.models import (
    JobKind,
    JobStatus,
    Lane,
    Project,
    Promotion,
    RetrainRule,
    Slot,
    TrainingJob,
)
from annotation.services import versions
from annotation.services.jobs import request_training
from annotation.services.projects import lock_project
from annotation.services.retraining import facts_of, is_due


@transaction.atomic
def request_what_is_due(project: Project) -> list[TrainingJob]:
    """Queue a reward job where the project's rule says so, and PPO after a new reward model.

    Two ticks at once take turns at the project's row, so that the second sees the first's job.
    """
    lock_project(project)
    rule = RetrainRule.objects.filter(project=project).first()
    if rule is None:
        return []
    requested = []
    due, why = is_due(rule, facts_of(project))
    if due:
        requested.append(request_training(project=project, kind=JobKind.REWARD, reason=why))
    if rule.enabled and rule.ppo_after_reward and (newest := reward_without_ppo(project)):
        why = f"{newest.version.name} was promoted"
        requested.append(request_training(project=project, kind=JobKind.PPO, reason=why))
    return requested


def reward_without_ppo(project: Project) -> Promotion | None:
    """The reward promotion in force that no PPO job has used or waits to use.

    Promoting a reward model queues PPO at once (services.versions); this finds the one that was
    promoted before there was a policy to improve.
    """
    newest = Promotion.objects.select_related("version").in_force(project, Slot.REWARD)
    if newest is None or newest.verdict == "rollback":
        return None
    if versions.in_force(project, Slot.POLICY) is None:
        return None
    ppo = TrainingJob.objects.filter(project=project, kind=JobKind.PPO, lane=Lane.LOOP)
    after = Q(requested_at__gte=newest.created_at) | Q(started_at__gte=newest.created_at)
    return None if ppo.filter(after | Q(status=JobStatus.QUEUED)).exists() else newest
