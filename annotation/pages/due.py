"""What trains next and why, in words for the overview; services/retraining.py decides."""

import math
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import Project, RetrainRule
from annotation.services.retraining import Facts, facts_of

MOST_COUNTED = 20_000
"""New answers, unless the rule waits for more; the page is asked again every few seconds."""


@dataclass(frozen=True)
class Due:
    """The state of the retrain rule: one sentence, and a measure where there is one."""

    sentence: str
    is_due: bool = False
    have: int | None = None
    """New answers, counted as far as MOST_COUNTED or `wanted`."""
    wanted: int | None = None

    @property
    def have_in_words(self) -> str:
        """With a plus where there are more than were counted."""
        have, most = self.have or 0, max(MOST_COUNTED, self.wanted or 0)
        return f"{most}+" if have > most else str(have)


def what_is_due(project: Project, rule: RetrainRule | None) -> Due:
    """When the next reward model is trained."""
    most = max(MOST_COUNTED, (rule.after_preferences if rule else None) or 0)
    facts = facts_of(project, most=most)
    if rule is None or not rule.enabled:
        sentence = _("The retrain rule is off: a reward model is trained when an admin asks.")
        return Due(sentence, have=facts.new_preferences)
    new, wanted = facts.new_preferences, rule.after_preferences
    if facts.job_open:
        return Due(_("A reward model is being trained."), have=new, wanted=wanted)
    if facts.policy_in_the_making:
        return Due(
            _("A reward model waits for the policy that is being trained."), have=new, wanted=wanted
        )
    if new == 0:
        return Due(_("There are no new answers to train on."), have=0, wanted=wanted)
    if wanted is not None and new < wanted:
        missing = wanted - new
        sentence = ngettext(
            "%(count)s more answer makes a reward model due.",
            "%(count)s more answers make a reward model due.",
            missing,
        )
        return Due(sentence % {"count": missing}, have=new, wanted=wanted)
    minutes = _minutes_left(rule, facts)
    if minutes > 0:
        sentence = ngettext(
            "A reward model is due in %(count)s minute.",
            "A reward model is due in %(count)s minutes.",
            minutes,
        )
        return Due(sentence % {"count": minutes}, have=new, wanted=wanted)
    return Due(_("A reward model is due now."), is_due=True, have=new, wanted=wanted)


def _minutes_left(rule: RetrainRule, facts: Facts) -> int:
    if rule.every_minutes is None or facts.minutes_since is None:
        return 0
    return max(0, math.ceil(rule.every_minutes - facts.minutes_since))
