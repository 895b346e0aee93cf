"""After the answer: void it, or put a revision in its place."""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from annotation.errors import Conflict
from annotation.models import Comparison, Preference, SendBack, SendBackState, User
from annotation.services import answers, standing
from annotation.services.answers import Answer, Judgment
from annotation.services.audit import name_of, record
from annotation.services.disagreements import look_again
from annotation.services.overlap import settle
from annotation.services.rankings import AxisRanking
from annotation.services.reasons import MAX_REASON, said_why
from annotation.services.schemes import Options

BY_THE_ANNOTATOR = gettext_noop("edited by the annotator")
"""The cause of whoever changes an answer of their own; kept in English, shown in the reader's."""


@transaction.atomic
def void_preference(*, preference: Preference, by: User, reason: str) -> Preference:
    """Take an answer out of everything; its slot opens again, for another annotator, unless it was
    asked for only because that answer differed from another.

    Raises Conflict for one that is void already or replaced by a revision.
    """
    reason = said_why(reason, gettext("A void needs a reason"))
    preference = locked_current(preference)
    Preference.objects.filter(pk=preference.pk).update(
        voided_at=timezone.now(), voided_by=by, void_reason=reason, counted=False
    )
    if preference.counted:
        Comparison.objects.filter(pk=preference.comparison_id).update(
            open_slots=F("open_slots") + 1
        )
    SendBack.objects.filter(preference=preference).settle(SendBackState.VOIDED)
    standing.unscore(preference)
    record(
        action="preference.void",
        target=preference,
        project=preference.project,
        actor=by,
        reason=reason,
        counted=preference.counted,
    )
    settle(preference.comparison_id)
    look_again(preference.comparison_id)
    preference.refresh_from_db()
    return preference


@transaction.atomic
def revise_preference(
    *,
    preference: Preference,
    rankings: Sequence[AxisRanking],
    cause: str,
    by: User | None = None,
    note: str | None = None,
    judgments: Sequence[Judgment] | None = None,
    ideal: str | None = None,
) -> Preference:
    """The next revision of an answer; the older row stays, and its count moves to the new one.

    note, judgments, ideal: None keeps the older ones. An answer that was sent back is settled by
    it, and the comment is its cause. Raises BadRanking, or Conflict for an answer that is void,
    replaced or imported.
    """
    cause = said_why(cause, gettext("A revision needs a cause"))
    old = locked_current(preference)
    sent_back = SendBack.objects.open().filter(preference=old).first()
    if sent_back is not None:
        cause = f"sent back: {sent_back.comment}"[:MAX_REASON]
    if old.source_id is not None:
        raise Conflict(
            gettext("Preference %(number)s was imported; it can be voided, not revised.")
            % {"number": old.pk}
        )
    # a chat's edit is an ideal answer that the scheme need not ask for, nor any form: it stays
    kept = None if Options.of(old.scheme.options).ideal else old.ideal
    if ideal is None:
        ideal = "" if kept else answers.ideal_of(old)
    answer = answers.checked(
        Answer(
            rankings=rankings,
            judgments=answers.judgments_of(old) if judgments is None else judgments,
            note=old.note if note is None else note,
            ideal=ideal,
        ),
        scheme=old.scheme,
        presented_order=old.presented_order,
    )
    Preference.objects.filter(pk=old.pk).update(current=False, counted=False)
    new = Preference.objects.create(
        project_id=old.project_id,
        comparison_id=old.comparison_id,
        annotator_id=old.annotator_id,
        assignment_id=old.assignment_id,
        scheme_id=old.scheme_id,
        guideline_id=old.guideline_id,
        presented_order=old.presented_order,
        revision=old.revision + 1,
        cause=cause,
        counted=old.counted,
        note=answer.note,
        ideal=kept,
        seconds=old.seconds,
        active_seconds=old.active_seconds,  # of these; the timesheet has a change's time by itself
    )
    answers.store(new, answer)
    SendBack.objects.filter(preference=old).settle(SendBackState.REVISED, revision=new)
    standing.score_revision(new, old)
    record(
        action="preference.revise",
        target=new,
        project=new.project,
        actor=by,
        replaces=name_of(old),
        cause=cause,
    )
    settle(new.comparison_id)
    look_again(new.comparison_id)
    return new


def locked_current(preference: Preference) -> Preference:
    """The answer as it stands once its comparison's row is held; void or replaced: Conflict."""
    Comparison.objects.select_for_update(no_key=True).get(pk=preference.comparison_id)
    now = Preference.objects.select_related("project", "scheme").get(pk=preference.pk)
    if now.voided_at is not None:
        raise Conflict(gettext("Preference %(number)s is void already.") % {"number": now.pk})
    if not now.current:
        raise Conflict(
            gettext("Preference %(number)s was replaced by a revision.") % {"number": now.pk}
        )
    return now
