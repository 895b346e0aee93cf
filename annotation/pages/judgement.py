"""A reward model that no answers could judge: what is missing, and what may be done meanwhile."""

from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import ModelVersion, Project, VersionKind
from annotation.services.heldout import heldout_of
from annotation.verdicts import FEWEST_GROUPS, outcome_of


@dataclass(frozen=True)
class Missing:
    """Until the next reward model can be judged."""

    have: int
    sentence: str
    """How many more answers it takes."""
    more: tuple[str, ...]
    """Where these come from, and what an unjudged model may be used for."""
    wanted: int = FEWEST_GROUPS


def what_is_missing(project: Project, version: ModelVersion) -> Missing | None:
    """None for a version that was judged, is no reward model or has met no gate."""
    gate = version.metrics.get("gate")
    if version.kind != VersionKind.REWARD or not gate or outcome_of(gate) != "unjudged":
        return None
    found = heldout_of(project)
    lacking = FEWEST_GROUPS - found.answered
    if lacking <= 0:
        sentence = _("There are enough held-out answers now: the next reward model is judged.")
        return Missing(found.answered, sentence, (_after_it(),))
    sentence = ngettext(
        "%(count)s more held-out question must be answered before a reward model can be judged.",
        "%(count)s more held-out questions must be answered before a reward model can be judged.",
        lacking,
    )
    asked = _(
        "Of the %(all)s open questions %(open)s are held out: on prompts of the dev split, from "
        "which no model learns. To have them asked sooner, give their batch a higher priority."
    )
    come = asked % {"all": found.open_in_all, "open": found.open}
    if found.open < lacking:
        share = f"{project.heldout_share:.0%}"
        come += " " + _("Of the questions that are still to be written %(share)s are held out.") % {
            "share": share
        }
    return Missing(found.answered, sentence % {"count": lacking}, (come, _after_it()))


def _after_it() -> str:
    return _(
        "This version stays unjudged; the next one trained is judged. It may be in force meanwhile "
        "and PPO may learn from it, for PPO refuses only what dev answers showed to be no better "
        "than a coin: read some of its policy's answers before you trust it."
    )
