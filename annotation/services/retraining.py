"""Is it time to train again? The rule is a row, the facts are counted, the answer is a function."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from annotation.funnel import VoteQuery
from annotation.models import (
    JobKind,
    JobStatus,
    Lane,
    Preference,
    Project,
    Purpose,
    RetrainRule,
    Split,
    TrainingJob,
)

WAITING_OR_RUNNING = (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is_due needs to know about a project."""

    new_preferences: int
    """Valid trainable answers that no reward job of the loop has seen."""
    minutes_since: float | None
    """Since the last reward job was asked for; None = there was none."""
    job_open: bool
    """A reward job waits or runs."""
    policy_in_the_making: bool = False
    """Pretraining or fine-tuning waits or runs: the reward model is to start from its outcome."""


def is_due(rule: RetrainRule, facts: Facts) -> tuple[bool, str]:
    """Whether a reward job is due under the rule, and a sentence that says why or why not."""
    if not rule.enabled:
        return False, "the rule is off"
    if facts.job_open:
        return False, "a reward job waits or runs already"
    if facts.policy_in_the_making:
        return False, "the policy that it would start from is still being trained"
    if facts.new_preferences == 0:
        return False, "there is no new preference"
    reasons = [f"{facts.new_preferences} new preferences"]
    if rule.after_preferences is not None and facts.new_preferences < rule.after_preferences:
        return False, f"{facts.new_preferences} of {rule.after_preferences} new preferences"
    if rule.every_minutes is not None and facts.minutes_since is not None:
        if facts.minutes_since < rule.every_minutes:
            return False, f"{facts.minutes_since:.0f} of {rule.every_minutes} minutes have passed"
        reasons.append(f"{facts.minutes_since:.0f} minutes since the last reward job")
    return True, ", ".join(reasons)


def facts_of(project: Project, *, most: int | None = None) -> Facts:
    """Count what is_due needs; cancelled jobs saw nothing. most: count no further, for a page that
    would wait for it; one more than that says that there are more."""
    jobs = TrainingJob.objects.filter(project=project, kind=JobKind.REWARD, lane=Lane.LOOP)
    last = (
        jobs.exclude(status=JobStatus.CANCELLED).select_related("snapshot").order_by("-pk").first()
    )
    unseen = Preference.objects.valid().filter(
        project=project,
        annotator__kind__in=votes_that_train(
            project.job_defaults.get("inputs", {}).get(JobKind.REWARD, {})
        ),
        comparison__purpose__in=(Purpose.PRODUCTION, Purpose.LIVE),
        comparison__prompt__split=Split.TRAIN,
    )
    minutes = None
    if last is not None:
        minutes = (timezone.now() - last.requested_at) / timedelta(minutes=1)
        position = last.snapshot.ledger_position.get("preference") if last.snapshot else None
        unseen = unseen.filter(
            Q(created_at__gt=last.requested_at) if position is None else Q(pk__gt=position)
        )
    if most is not None:
        unseen = unseen.order_by()[: most + 1]
    open_kinds = set(
        TrainingJob.objects.filter(
            project=project,
            kind__in=(JobKind.REWARD, JobKind.PRETRAIN, JobKind.SFT),
            lane=Lane.LOOP,
            status__in=WAITING_OR_RUNNING,
        ).values_list("kind", flat=True)
    )
    return Facts(
        new_preferences=unseen.count(),
        minutes_since=minutes,
        job_open=JobKind.REWARD in open_kinds,
        policy_in_the_making=not open_kinds.isdisjoint((JobKind.PRETRAIN, JobKind.SFT)),
    )


def votes_that_train(inputs: Mapping[str, Any]) -> list[str]:
    """Kinds of annotators whose votes a reward job takes: people's, unless its inputs say.

    Raises BadInput for kinds that there are not.
    """
    return list(VoteQuery.of({"annotators": inputs.get("annotators")}).annotators)
