"""Which comparisons people disagree on, so that a reviewer must decide.

A review needs no lease: see services/decisions.py for what happens where two read the same one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from django.db import transaction
from django.db.models import Case, Q, QuerySet, Value, When
from django.utils import timezone
from django.utils.translation import gettext

from annotation.accord import Said, accord
from annotation.errors import BadInput
from annotation.funnel import NEVER_USED
from annotation.models import (
    Annotator,
    Batch,
    Comparison,
    Decision,
    Preference,
    Project,
    Ranking,
    Review,
    ReviewState,
    Split,
    User,
)
from annotation.prepared import Prepared
from annotation.services.audit import record
from annotation.services.retraining import votes_that_train

MOST_SENT = 200
"""Comparisons that are sent to review at once; each is looked at again."""


def votes_compared(comparison_id: int, job_defaults: dict[str, Any]) -> QuerySet[Preference]:
    """The answers that a review is about: valid ones, of the kinds that train."""
    kinds = votes_that_train(job_defaults.get("inputs", {}).get("reward", {}))
    return _votes_of(comparison_id, kinds)


def _votes_of(comparison_id: int, kinds: Iterable[str]) -> QuerySet[Preference]:
    return Preference.objects.valid().filter(comparison=comparison_id, annotator__kind__in=kinds)


_FACTS = (
    "project_id",
    "purpose",
    "project__job_defaults",
    "project__review_below",
    "batch__review_below",
    "review__id",
    "review__sent_at",
)
_FACTS_OF: Prepared[Any] = Prepared(
    lambda comparison: Comparison.objects.filter(pk=comparison).values_list(*_FACTS), comparison=1
)


@cache
def _said_by(kinds: tuple[str, ...]) -> Prepared[Any]:
    """What these kinds of annotators say of a comparison, axis by axis."""

    def rankings(comparison: int) -> QuerySet[Ranking, Any]:
        votes = _votes_of(comparison, kinds)
        found = Ranking.objects.filter(preference__in=votes)
        return found.values_list("axis", "outcome", "groups", "preference_id")

    return Prepared(rankings, comparison=1)


def look_again(comparison_id: int) -> None:
    """Open, close or mark a comparison's review, as its answers now stand.

    Call it in the transaction that changed an answer, with the comparison's row held.
    """
    facts = dict(zip(_FACTS, _FACTS_OF(comparison=comparison_id)[0], strict=True))
    if facts["purpose"] in NEVER_USED:
        return
    said: dict[str, dict[int, Said]] = defaultdict(dict)
    kinds = votes_that_train(facts["project__job_defaults"].get("inputs", {}).get("reward", {}))
    for axis, outcome, groups, vote in _said_by(tuple(kinds))(comparison=comparison_id):
        said[axis][vote] = Said(outcome, groups)
    ids = {vote for by_vote in said.values() for vote in by_vote}
    if len(ids) < 2 and facts["review__id"] is None:
        return
    found = {axis: accord(list(by_vote.values())) for axis, by_vote in sorted(said.items())}
    known = {axis: round(value, 4) for axis, value in found.items() if value is not None}
    bar = facts["batch__review_below"]
    bar = facts["project__review_below"] if bar is None else bar
    lowest = min(known.values(), default=1.0)
    decided = Decision.objects.filter(comparison=comparison_id, current=True).first()
    is_open = lowest < bar or (facts["review__sent_at"] is not None and bool(ids))
    state = ReviewState.OPEN if is_open else ReviewState.ABOVE
    now = {
        "state": ReviewState.DECIDED if decided else state,
        "accord": known,
        "lowest": lowest,
        "num_answers": len(ids),
        "answers_since": sum(vote > decided.votes_seen for vote in ids) if decided else 0,
    }
    if facts["review__id"] is None:
        Review.objects.create(project_id=facts["project_id"], comparison_id=comparison_id, **now)
    else:
        Review.objects.filter(pk=facts["review__id"]).update(**now)


@transaction.atomic
def send_to_review(*, project: Project, comparisons: Iterable[int], by: User | None) -> int:
    """Have reviewers decide these comparisons, however well their answers agree; how many did not
    wait for one before, nor were decided.

    Only what has an answer that a review is about, is no check or repeat, was not retired, and lies
    outside the test split: who picks what is looked at twice would shift what it measures. The rest
    stays as it is, and sending twice is sending once. Raises BadInput for none or too many.
    """
    ids = list(dict.fromkeys(comparisons))
    if not 1 <= len(ids) <= MOST_SENT:
        raise BadInput(
            gettext("Choose 1 to %(most)s comparisons, not %(count)s.")
            % {"most": MOST_SENT, "count": len(ids)}
        )
    fit = (
        Comparison.objects.filter(project=project, pk__in=ids, retired_at=None, repeat_of=None)
        .exclude(purpose__in=NEVER_USED)
        .exclude(prompt__split=Split.TEST)
    )
    # held in one order, or two who send at once might wait for each other
    locked = list(fit.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    known = {one.comparison_id: one for one in Review.objects.filter(comparison__in=locked)}
    kinds = votes_that_train(project.job_defaults.get("inputs", {}).get("reward", {}))
    sent = []
    for pk in locked:
        review = known.get(pk)
        waits_or_decided = review is not None and review.state != ReviewState.ABOVE
        if waits_or_decided or not _votes_of(pk, kinds).exists():
            continue
        if review is None:
            nothing = {"project": project, "accord": {}, "lowest": 1.0, "num_answers": 0}
            review = Review.objects.create(comparison_id=pk, **nothing)
        Review.objects.filter(pk=review.pk).update(sent_at=timezone.now())
        look_again(pk)
        sent.append(pk)
    if sent:
        record(action="review.send", project=project, actor=by, comparisons=sent)
    return len(sent)


def next_for(annotator: Annotator, *, but: int | None = None) -> Review | None:
    """The open review to read next: first those that have all their answers, then those that
    people disagree on most. Reviewers begin at different places, so that they seldom meet; what
    one answered oneself is for somebody else. but: a comparison to pass over.
    """
    place = (annotator.pk * (math.sqrt(5) - 1) / 2) % 1
    return (
        open_reviews(annotator.project)
        .exclude(comparison__preferences__annotator=annotator)
        .exclude(comparison=but)
        .annotate(
            waits=Case(When(comparison__open_slots=0, then=Value(0)), default=Value(1)),
            behind=Case(When(comparison__sort_key__gte=place, then=Value(0)), default=Value(1)),
        )
        .order_by("waits", "lowest", "behind", "comparison__sort_key", "pk")
        .first()
    )


def open_reviews(project: Project) -> QuerySet[Review]:
    """Those that wait for a reviewer; what was retired waits for nobody."""
    return Review.objects.filter(
        project=project, state=ReviewState.OPEN, comparison__retired_at=None
    )


@transaction.atomic
def set_bar(
    *, project: Project, below: float | None, by: User | None, batch: Batch | None = None
) -> None:
    """Below which accord a comparison goes to review: of a batch (None = as the project), else of
    all batches that name none. Reviews open and close at once.

    Raises BadInput for a number outside 0 to 1, or none for the project.
    """
    if below is None and batch is None:
        raise BadInput("A project's bar is a number from 0 to 1, not nothing.")
    if below is not None and not 0 <= below <= 1:
        raise BadInput(f"A bar lies from 0 to 1: {below!r}.")
    row: Project | Batch = batch or project
    before = row.review_below
    row.review_below = below
    row.save(update_fields=["review_below"])
    record(action="review.bar", target=row, project=project, actor=by, before=before, after=below)
    reviews = Review.objects.filter(project=project).exclude(state=ReviewState.DECIDED)
    if batch is not None:
        reviews = reviews.filter(comparison__batch=batch)
    else:
        reviews = reviews.filter(comparison__batch__review_below=None)
    bar = project.review_below if below is None else below
    is_open = Q(lowest__lt=bar) | Q(sent_at__isnull=False, num_answers__gt=0)
    ids = Review.objects.filter(pk__in=reviews.values("pk"))
    ids.filter(is_open).update(state=ReviewState.OPEN)
    ids.exclude(is_open).update(state=ReviewState.ABOVE)
