"""Which gold item an annotator is asked next: hidden among real work, or before any of it.

A project without rules pays nothing: what decides lies on the project's and the annotator's rows.
Gold is never in the walk. Its answers_wanted grows with its leases, so it never runs out.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils.crypto import salted_hmac

from annotation.errors import NothingToDo
from annotation.gold import Constraint, Says, gap
from annotation.models import (
    Annotator,
    AnnotatorStanding,
    Assignment,
    Batch,
    Comparison,
    GoldCheck,
    GoldItem,
    GoldState,
    GoldUse,
    GoldVote,
    Membership,
    PracticeAnswer,
    Preference,
    QualificationState,
    Role,
    Scheme,
)
from annotation.services.checkrules import CheckRules
from annotation.services.gold import constraints_of
from annotation.services.leases import MAY_COME_AGAIN, take
from annotation.services.walk import fitness, fits

MOST_ITEMS = 1000
"""Items looked at for one check, the least shown first."""
EXPERTS = (Role.REVIEWER, Role.ADMIN)


def require_not_stopped(annotator: Annotator) -> None:
    """Raises NothingToDo for an annotator whom the bar has stopped."""
    if annotator.standing == AnnotatorStanding.STOPPED:
        raise NothingToDo("stopped")


def barred(annotator: Annotator) -> str:
    """Why the annotator may do no real work: stopped, not_qualified; empty where they may."""
    if annotator.standing == AnnotatorStanding.STOPPED:
        return "stopped"
    return "not_qualified" if _must_qualify(annotator) else ""


def _must_qualify(annotator: Annotator) -> bool:
    """The project qualifies its labelers, and this one has not passed; experts need not."""
    if not _rules(annotator).qualification_items:
        return False
    return annotator.qualification != QualificationState.PASSED and not _is_expert(annotator)


def lease_of_qualification(annotator: Annotator, kind: str, now: datetime) -> Assignment | None:
    """A qualification item for whoever must still qualify; None for everybody else.

    Raises NothingToDo for whoever has failed, holds all items of this try, or has seen all.
    """
    if not _must_qualify(annotator):
        return None
    items_wanted = _rules(annotator).qualification_items
    if annotator.qualification == QualificationState.FAILED:
        raise NothingToDo("not_qualified")
    under_way = GoldCheck.objects.filter(
        annotator=annotator,
        attempt=annotator.qualification_try,
        counts=True,
        item__use=GoldUse.QUALIFICATION,
    ).count()
    under_way += Assignment.objects.filter(
        annotator=annotator, holds_slot=True, comparison__gold__use=GoldUse.QUALIFICATION
    ).count()
    items = _for_annotator(annotator, GoldUse.QUALIFICATION) if under_way < items_wanted else []
    if not items:
        raise NothingToDo("qualification_out")
    item = min(items, key=lambda one: _lot(f"qualification {annotator.pk} {one.pk}"))
    return _take(item, annotator, kind, now)


def lease_of_hidden_check(
    annotator: Annotator, instead_of: Comparison, kind: str, now: datetime
) -> Assignment | None:
    """A hidden check in the place of a comparison of the walk, where one is due; else None.

    Each call counts one new comparison of the annotator. The check is asked and shown like what it
    stands in for, so that nothing tells them apart; a sensitive one stands in for no other than a
    sensitive comparison. Raises IntegrityError as `take` does.
    """
    every = _rules(annotator).gold_every
    if not every:
        return None
    annotator.refresh_from_db(fields=["until_check", "num_checks"])
    left = annotator.until_check
    left = min(_gap(annotator, every) if left is None else left, gap(every, 0.999)) - 1
    is_due = left <= 0
    if is_due:
        annotator.num_checks += 1
        left = _gap(annotator, every)
    annotator.until_check = left
    annotator.save(update_fields=["until_check", "num_checks"])
    if not is_due:
        return None
    items = [
        item
        for item in _for_annotator(annotator, GoldUse.HIDDEN)
        if _can_be_said(constraints_of(item), instead_of.batch.scheme)
        and (instead_of.batch.sensitive or not item.origin.batch.sensitive)
    ]
    if not items:
        return None
    item = min(items, key=lambda one: (one.num_shown, _lot(f"check {annotator.pk} {one.pk}")))
    return _take(item, annotator, kind, now, instead_of.batch)


def num_left_for(annotator: Annotator) -> int:
    """How many qualification items the annotator has not seen."""
    return len(_for_annotator(annotator, GoldUse.QUALIFICATION))


def had_by(annotator: Annotator, comparison: str) -> Q:
    """Leased to, answered or skipped by the annotator; an expired or released lease may come again.

    comparison: the field of the outer query that holds the comparison.
    """
    leased = Assignment.objects.filter(
        comparison=OuterRef(comparison), annotator=annotator
    ).exclude(state__in=MAY_COME_AGAIN)
    answered = Preference.objects.filter(comparison=OuterRef(comparison), annotator=annotator)
    return Q(Exists(leased)) | Q(Exists(answered))


@transaction.atomic
def _take(
    item: GoldItem,
    annotator: Annotator,
    kind: str,
    now: datetime,
    stands_in_for: Batch | None = None,
) -> Assignment | None:
    """Lease an item; one more answer is wanted unless a slot was given back. None: retired."""
    of = Comparison.objects.filter(pk=item.comparison_id, open_slots=0, retired_at__isnull=True)
    of.update(open_slots=F("open_slots") + 1, answers_wanted=F("answers_wanted") + 1)
    lease = take(item.comparison, annotator, kind, now, stands_in_for)
    if lease is not None:
        GoldItem.objects.filter(pk=item.pk).update(num_shown=F("num_shown") + 1)
    return lease


def _for_annotator(annotator: Annotator, use: str) -> list[GoldItem]:
    """Live items of a use in the annotator's languages and skills that are new to them: nor did
    they see its original or another copy of it, or vote on it as an expert. None of sensitive
    origin for whoever refuses these."""
    languages, skills = fitness(annotator)
    return [
        item
        for item in _new_to(annotator, use)
        if fits((item.comparison.language, item.comparison.skill), languages, skills)
        and not (annotator.refuses_sensitive and item.origin.batch.sensitive)
    ]


def _new_to(annotator: Annotator, use: str) -> QuerySet[GoldItem]:
    copies = Q(item__origin=OuterRef("origin"), annotator=annotator)
    voted = GoldVote.objects.filter(item__origin=OuterRef("origin"), expert=annotator.user_id)
    return (
        GoldItem.objects.filter(project=annotator.project_id, use=use, state=GoldState.LIVE)
        .exclude(had_by(annotator, "comparison"))
        .exclude(had_by(annotator, "origin"))
        .exclude(Exists(GoldCheck.objects.filter(copies)))
        .exclude(Exists(PracticeAnswer.objects.filter(copies)))
        .exclude(Exists(voted))
        .select_related("comparison__batch", "origin__batch")
        .order_by("num_shown", "pk")[:MOST_ITEMS]
    )


def _can_be_said(constraints: Sequence[Constraint], scheme: Scheme) -> bool:
    """Whether an answer under the scheme can hold them all."""
    allowed = {
        Says.ABOVE: True,
        Says.EQUAL: scheme.allow_tie,
        Says.BOTH_BAD: scheme.allow_both_bad,
    }
    return all(one.axis in scheme.axes and allowed[Says(one.says)] for one in constraints)


def _is_expert(annotator: Annotator) -> bool:
    """Who may answer as an expert need not qualify."""
    return Membership.objects.filter(
        project=annotator.project_id,
        user__isnull=False,
        user=annotator.user_id,
        role__in=EXPERTS,
    ).exists()


def _rules(annotator: Annotator) -> CheckRules:
    return CheckRules.of(annotator.project.checks)


def _gap(annotator: Annotator, every: int) -> int:
    return gap(every, _lot(f"gap {annotator.pk} {annotator.num_checks}"))


def _lot(of: str) -> float:
    """Drawn in [0, 1) by a seed that only the server can know."""
    return int.from_bytes(salted_hmac("annotation.checks", of).digest()[:6]) / 2**48
