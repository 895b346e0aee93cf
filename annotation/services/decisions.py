"""What a reviewer decides where people disagree.

No lease is needed: two reviewers may read the same comparison, and the first to decide wins; the
second is shown what the first one said, and may put another decision in its place.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict, NotAllowed
from annotation.models import Comparison, Decision, Preference, Review, Scheme, User
from annotation.services import answers
from annotation.services.answers import Answer
from annotation.services.audit import record
from annotation.services.disagreements import look_again
from annotation.services.leases import lock_comparison, shown_order
from annotation.services.positions import VOID_DECISION
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.reasons import said_why
from annotation.services.schemes import Options


def scheme_of(comparison: Comparison) -> Scheme:
    """What a decision may look like: the scheme's orders, without what one says of a completion by
    itself. Where there is one axis, what cannot be told cannot be decided. It is not stored."""
    scheme = comparison.batch.scheme
    options = replace(
        Options.of(scheme.options), ratings=(), flags=(), ideal=False, reason="optional"
    )
    return Scheme(
        project_id=scheme.project_id,
        version=scheme.version,
        axes=scheme.axes,
        allow_tie=scheme.allow_tie,
        allow_both_bad=scheme.allow_both_bad,
        allow_cannot_tell=scheme.allow_cannot_tell and len(scheme.axes) > 1,
        options=options.as_json(),
    )


@transaction.atomic
def decide(
    *,
    comparison: Comparison,
    by: User,
    seen: int,
    rankings: Sequence[AxisRanking] = (),
    undecidable: bool = False,
    reason: str = "",
) -> Decision:
    """Store what a reviewer says; whatever was decided before stays, but counts no more.

    seen: number of the newest decision that the reviewer was shown, 0 = there was none. Raises
    Conflict where another has decided since, NotAllowed for whoever answered the comparison,
    BadRanking or BadInput for an answer that does not fit, Conflict where nothing is in review.
    """
    comparison = lock_comparison(comparison.pk)
    annotator = annotator_for(user=by, project=comparison.project)
    if not Review.objects.filter(comparison=comparison).exists():
        raise Conflict(
            gettext("Comparison %(number)s has no two answers to decide between.")
            % {"number": comparison.pk}
        )
    if Preference.objects.filter(comparison=comparison, annotator=annotator).exists():
        raise NotAllowed(
            gettext("You answered this comparison yourself; somebody else decides it.")
        )
    before = Decision.objects.filter(comparison=comparison)
    newest = before.aggregate(number=Max("number"))["number"] or 0
    if newest != seen:
        raise Conflict(
            gettext("Comparison %(number)s was decided meanwhile: look at that first.")
            % {"number": comparison.pk}
        )
    order = shown_order(comparison, annotator)
    answer = Answer(rankings=rankings, note=reason.strip())
    if undecidable:
        if rankings:
            raise BadInput(gettext("What cannot be decided has no ranking."))
        said_why(reason, gettext("What cannot be decided needs a reason"))
    else:
        answer = answers.checked(answer, scheme=scheme_of(comparison), presented_order=order)
    before.filter(current=True).update(current=False)
    votes = Preference.objects.filter(comparison=comparison)
    decision = Decision.objects.create(
        project_id=comparison.project_id,
        comparison=comparison,
        by=annotator,
        scheme_id=comparison.batch.scheme_id,
        number=newest + 1,
        presented_order=order,
        rankings=[asdict(one) for one in answer.rankings],
        undecidable=undecidable,
        reason=answer.note,
        votes_seen=votes.aggregate(newest=Max("pk"))["newest"] or 0,
    )
    record(
        action="decision.make",
        target=decision,
        project=comparison.project,
        actor=by,
        comparison=comparison.pk,
        number=decision.number,
        undecidable=undecidable,
    )
    look_again(comparison.pk)
    return decision


@transaction.atomic
def void_decision(*, decision: Decision, by: User, reason: str) -> Decision:
    """Take a decision back; its comparison waits for a reviewer again, if people still disagree.

    Raises Conflict for one that is void or superseded.
    """
    reason = said_why(reason, gettext("A void needs a reason"))
    lock_comparison(decision.comparison_id)
    taken = Decision.objects.filter(pk=decision.pk, current=True).update(
        current=False, voided_at=timezone.now(), voided_by=by, void_reason=reason
    )
    if not taken:
        raise Conflict(
            gettext("Decision %(number)s is void or superseded already.") % {"number": decision.pk}
        )
    record(action=VOID_DECISION, target=decision, project=decision.project, actor=by, reason=reason)
    look_again(decision.comparison_id)
    decision.refresh_from_db()
    return decision


def rankings_of(decision: Decision) -> list[AxisRanking]:
    """What it says, one per axis; nothing where it could not be decided."""
    return [AxisRanking(**one) for one in decision.rankings]
