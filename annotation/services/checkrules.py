"""How a project checks its annotators: hidden gold, the bar on it, and the qualification round.

A project keeps these as JSON in `checks`; here they are read, checked and changed. A project that
says nothing checks nobody, and its claims ask nothing more of the database.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import (
    Annotator,
    AnnotatorKind,
    AnnotatorStanding,
    GoldState,
    GoldUse,
    Project,
    QualificationState,
    User,
)
from annotation.services.audit import record
from annotation.storable import require_storable

MAX_SKILL = 40
ENDS = {
    "gold_every": (0, 1000),
    "repeat_every": (0, 1000),
    "repeat_gap": (1, 1000),
    "bar_percent": (0, 100),
    "bar_window": (5, 200),
    "bar_more": (1, 200),
    "qualification_items": (0, 100),
    "qualification_percent": (1, 100),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRules:
    """Settings of a project; percents are whole."""

    gold_every: int = 0
    """One hidden check in about so many new comparisons of an annotator; 0 = none."""
    repeat_every: int = 0
    """One of an annotator's own comparisons comes again in about so many new ones; 0 = never. Off
    unless asked for: each repeat costs an answer that nothing learns from."""
    repeat_gap: int = 20
    """Answers of the annotator that lie between at least."""
    bar_percent: int = 0
    """An annotator below this on the last checks is warned, then stopped; 0 = no bar."""
    bar_window: int = 20
    """How many of an annotator's last checks the bar looks at; fewer decide nothing."""
    bar_more: int = 10
    """Whoever is still below after so many checks since the warning is stopped."""
    qualification_items: int = 0
    """How many items a new labeler answers before real work; 0 = no qualification."""
    qualification_percent: int = 80
    """Share of them that must be right."""
    qualification_skill: str = ""
    """Given to whoever passes; empty = none."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "CheckRules":
        """Rules as JSON or a form gives them. Raises BadInput with the value seen."""
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(stored) - known):
            raise BadInput(f"Checks have {', '.join(sorted(known))}: not {unknown[0]!r}.")
        rules = cls(**stored)
        rules._check()
        return rules

    def as_json(self) -> dict[str, Any]:
        """What differs from a project that checks nobody."""
        plain = asdict(CheckRules())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def _check(self) -> None:
        for name, (low, high) in ENDS.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not low <= value <= high:
                raise BadInput(
                    gettext("%(name)s is a whole number from %(low)s to %(high)s: %(seen)r.")
                    % {"name": name, "low": low, "high": high, "seen": value}
                )
        if self.gold_every == 1:
            raise BadInput(
                gettext("gold_every is 0 (none) or 2 and more: 1 would leave no real work.")
            )
        if self.repeat_every == 1:
            raise BadInput(
                gettext("repeat_every is 0 (none) or 2 and more: 1 would leave no new work.")
            )
        if self.bar_percent and not self.gold_every:
            raise BadInput(gettext("A bar needs hidden checks: gold_every is 0."))
        skill = self.qualification_skill
        if not isinstance(skill, str) or len(skill) > MAX_SKILL or skill != skill.strip():
            raise BadInput(
                gettext("A skill has at most %(most)s characters: %(seen)s.")
                % {"most": MAX_SKILL, "seen": f"{skill!r:.60}"}
            )
        require_storable(skill)


@transaction.atomic
def change_checks(*, project: Project, changes: Mapping[str, Any], by: User | None) -> Project:
    """Change some of the rules; the others stay.

    Turning the qualification on asks it of newcomers alone: whoever has an annotator here by then
    counts as qualified. Turning the bar off takes warnings away; a stop stays until it is lifted.
    Raises BadInput, also where there are too few live items for a qualification.
    """
    locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    before = CheckRules.of(locked.checks)
    rules = CheckRules.of(asdict(before) | dict(changes))
    if rules.qualification_items > before.qualification_items:
        _require_items(locked, rules.qualification_items)
    if rules.qualification_items and not before.qualification_items:
        people = Annotator.objects.filter(project=locked, kind=AnnotatorKind.PERSON)
        _update_in_turn(people, qualification=QualificationState.PASSED)
    if before.bar_percent and not rules.bar_percent:
        warned = Annotator.objects.filter(project=locked, standing=AnnotatorStanding.WARNED)
        _update_in_turn(warned, standing=AnnotatorStanding.GOOD, standing_from=None)
    locked.checks = rules.as_json()
    locked.save(update_fields=["checks"])
    record(
        action="project.checks",
        target=locked,
        project=locked,
        actor=by,
        before=before.as_json(),
        after=rules.as_json(),
    )
    return locked


def _update_in_turn(annotators: QuerySet[Annotator], **values: Any) -> None:
    """Update several, held by ascending id first as services.standing holds them: an update by
    itself takes rows as they lie, and two who take the same in different orders deadlock."""
    held = annotators.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True)
    Annotator.objects.filter(pk__in=list(held)).update(**values)


def _require_items(project: Project, wanted: int) -> None:
    there = project.gold_items.filter(use=GoldUse.QUALIFICATION, state=GoldState.LIVE).count()
    if there < wanted:
        raise BadInput(
            gettext(
                "A qualification of %(wanted)s items needs as many live ones: there are %(there)s."
            )
            % {"wanted": wanted, "there": there}
        )
