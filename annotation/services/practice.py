"""Practice: gold that explains itself. Its answers are no votes and count for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext

from annotation.errors import Conflict
from annotation.gold import Answered, Constraint, in_short, verdict_of, verdict_on
from annotation.models import (
    Annotator,
    CheckVerdict,
    GoldItem,
    GoldState,
    GoldUse,
    PracticeAnswer,
)
from annotation.services import rankings as ranking_rules
from annotation.services.gold import as_json, completion_ids, constraints_of, said_in
from annotation.services.rankings import AxisRanking
from annotation.services.walk import fitness, fits


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a practice answer came to."""

    verdict: CheckVerdict
    constraints: list[tuple[Constraint, CheckVerdict]]
    """What the experts agree on by now, without what follows from the rest, and whether the answer
    holds it."""
    explanations: list[str]


def practice_items(annotator: Annotator) -> list[tuple[GoldItem, PracticeAnswer | None]]:
    """The live items in the annotator's languages and skills, oldest first, with their answers;
    none of sensitive origin for whoever refuses these."""
    languages, skills = fitness(annotator)
    answered = {one.item_id: one for one in PracticeAnswer.objects.filter(annotator=annotator)}
    items = GoldItem.objects.filter(
        project=annotator.project_id, use=GoldUse.PRACTICE, state=GoldState.LIVE
    ).select_related("comparison__prompt", "origin__batch")
    return [
        (item, answered.get(item.pk))
        for item in items.order_by("pk")
        if fits((item.comparison.language, item.comparison.skill), languages, skills)
        and not (annotator.refuses_sensitive and item.origin.batch.sensitive)
    ]


@transaction.atomic
def answer_practice(
    *, item: GoldItem, annotator: Annotator, rankings: Sequence[AxisRanking]
) -> PracticeAnswer:
    """Keep the first answer; a second one comes after the explanation and changes nothing.

    Raises BadRanking, or Conflict for an item that is not live any more.
    """
    locked = GoldItem.objects.select_for_update(no_key=True).get(pk=item.pk)
    if locked.use != GoldUse.PRACTICE or locked.state != GoldState.LIVE:
        raise Conflict(
            gettext("Practice item %(number)s is not live any more.") % {"number": locked.pk}
        )
    checked = ranking_rules.checked(
        rankings,
        scheme=item.comparison.batch.scheme,
        presented_order=completion_ids(item.comparison),
    )
    said = as_json(checked)
    answer, _ = PracticeAnswer.objects.get_or_create(
        item=locked,
        annotator=annotator,
        defaults={
            "rankings": said,
            "verdict": verdict_of(constraints_of(locked), said_in(said)),
        },
    )
    return answer


def lesson_of(answer: PracticeAnswer) -> Lesson:
    """What the experts say to a practice answer."""
    said: Answered = said_in(answer.rankings)
    constraints = constraints_of(answer.item)
    explanations = answer.item.votes.exclude(explanation="").order_by("pk")
    return Lesson(
        verdict=verdict_of(constraints, said),
        constraints=[(one, verdict_on(one, said)) for one in in_short(constraints)],
        explanations=list(explanations.values_list("explanation", flat=True)),
    )
