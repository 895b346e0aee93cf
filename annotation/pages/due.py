"""What trains next and why, in words for the overview.

The decision itself is workers/retraining.py's, which this package must not import; the counts here
follow its definitions: valid votes on train prompts that no reward job of the loop has seen.
"""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

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


@dataclass(frozen=True)
class Due:
    """The state of the retrain rule: one sentence, and a measure where there is one."""

    sentence: str
    is_due: bool = False
    have: int | None = None
    wanted: int | None = None


def what_is_due(project: Project, rule: RetrainRule | None) -> Due:
    """When the next reward model is trained."""
    if rule is None or not rule.enabled:
        return Due(_("The retrain rule is off: a reward model is trained when an admin asks."))
    jobs = TrainingJob.objects.filter(project=project, kind=JobKind.REWARD, lane=Lane.LOOP)
    last = (
        jobs.exclude(status=JobStatus.CANCELLED).select_related("snapshot").order_by("-pk").first()
    )
    new = new_preferences(project, last)
    if last is not None and last.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        return Due(_("A reward model is being trained."), have=new, wanted=rule.after_preferences)
    if new == 0:
        return Due(
            _("There are no new answers to train on."), have=0, wanted=rule.after_preferences
        )
    wanted = rule.after_preferences
    if wanted is not None and new < wanted:
        missing = wanted - new
        sentence = ngettext(
            "%(count)s more answer makes a reward model due.",
            "%(count)s more answers make a reward model due.",
            missing,
        )
        return Due(sentence % {"count": missing}, have=new, wanted=wanted)
    minutes = _minutes_left(rule, last)
    if minutes > 0:
        sentence = ngettext(
            "A reward model is due in %(count)s minute.",
            "A reward model is due in %(count)s minutes.",
            minutes,
        )
        return Due(sentence % {"count": minutes}, have=new, wanted=wanted)
    return Due(_("A reward model is due now."), is_due=True, have=new, wanted=wanted)


def new_preferences(project: Project, last: TrainingJob | None) -> int:
    """Valid votes for training that the last reward job has not seen."""
    unseen = Preference.objects.valid().filter(
        project=project,
        comparison__purpose__in=(Purpose.PRODUCTION, Purpose.LIVE),
        comparison__prompt__split=Split.TRAIN,
    )
    if last is not None:
        position = last.snapshot.ledger_position.get("preference") if last.snapshot else None
        unseen = unseen.filter(
            Q(created_at__gt=last.requested_at) if position is None else Q(pk__gt=position)
        )
    return unseen.count()


def _minutes_left(rule: RetrainRule, last: TrainingJob | None) -> int:
    if rule.every_minutes is None or last is None:
        return 0
    passed = (timezone.now() - last.requested_at) / timedelta(minutes=1)
    return max(0, round(rule.every_minutes - passed))
