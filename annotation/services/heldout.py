"""Held-out questions: those on dev prompts, by which reward models are judged."""

from dataclasses import dataclass

from annotation.funnel import USABLE
from annotation.models import Comparison, Outcome, Preference, Project, Split
from annotation.services.retraining import votes_that_train

MOST = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """What a project has of them now."""

    answered: int
    """Groups of dev prompts with an answer that orders something, by whom reward models hear; MOST
    where there are more, which nobody asks for."""
    open: int
    """Questions on dev prompts that still want an answer."""
    open_in_all: int
    """Questions on any prompt that still want one."""


def heldout_of(project: Project) -> HeldOut:
    """Count them as the next reward model's gate would."""
    voters = votes_that_train(project.job_defaults.get("inputs", {}).get("reward", {}))
    answered = (
        Preference.objects.valid()
        .filter(
            project=project,
            annotator__kind__in=voters,
            comparison__purpose__in=USABLE,
            comparison__prompt__split=Split.DEV,
            rankings__outcome=Outcome.RANKED,
        )
        .values("comparison__prompt__split_group")
        .distinct()
    )
    still_open = Comparison.objects.open().filter(project=project, purpose__in=USABLE)
    return HeldOut(
        answered=answered[:MOST].count(),
        open=still_open.filter(prompt__split=Split.DEV).count(),
        open_in_all=still_open.count(),
    )
