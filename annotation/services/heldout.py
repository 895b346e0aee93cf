"""Held-out questions: those on dev prompts, by which reward models are judged."""

from dataclasses import dataclass

from django.db.models import Exists, OuterRef

from annotation.funnel import USABLE
from annotation.models import Comparison, Outcome, Preference, Project, Prompt, Split
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
    votes = Preference.objects.valid().filter(
        annotator__kind__in=voters,
        comparison__prompt=OuterRef("pk"),
        comparison__purpose__in=USABLE,
        rankings__outcome=Outcome.RANKED,
    )
    answered: set[str] = set()
    prompts = Prompt.objects.filter(Exists(votes), project=project, split=Split.DEV)
    for group in prompts.values_list("split_group", flat=True).iterator():
        answered.add(group)
        if len(answered) == MOST:
            break
    still_open = Comparison.objects.open().filter(project=project, purpose__in=USABLE)
    return HeldOut(
        answered=len(answered),
        open=still_open.filter(prompt__split=Split.DEV).count(),
        open_in_all=still_open.count(),
    )
