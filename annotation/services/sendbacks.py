"""Answers sent back to whoever gave them: revised, declined with words, voided or withdrawn.

    open ──revise_preference──▶ revised      by a revision of the answer, whose cause is the comment
      ├──decline──────────────▶ declined     the answer stands, and the annotator says why
      ├──void_preference──────▶ voided       a reviewer did not wait
      └──withdraw─────────────▶ withdrawn    a reviewer thought again

The answer stays what it is all the while: current, counted, in its slot. So the queue knows nothing
of this, and its invariant holds by itself; a revision takes the count along as any revision does,
and a void opens the slot. Each step takes the comparison's row first and moves an open row once:
of two that meet, the second is a Conflict. A declined answer may be sent back again, as a new row.
"""

from django.db import transaction
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.models import AnnotatorKind, Preference, Purpose, SendBack, SendBackState, User
from annotation.services.audit import name_of, record
from annotation.services.leases import lock_comparison
from annotation.services.review import locked_current
from annotation.storable import require_storable

MAX_COMMENT = 2_000
AS_GIVEN = (Purpose.GOLD, Purpose.QUALIFICATION, Purpose.REPEAT)
"""Answers to checks count as they were given first; sent back, they would tell that they are."""


@transaction.atomic
def send_back(*, preference: Preference, by: User, comment: str) -> SendBack:
    """Ask the annotator of an answer to look at it again.

    Raises Conflict for an answer that is void, replaced, on its way back already, a check's, one's
    own, or given by nobody who has a desk here.
    """
    comment = _said(comment, gettext("A comment"))
    preference = locked_current(preference)
    if why := _why_not(preference, by):
        raise Conflict(why)
    if SendBack.objects.open().filter(preference=preference).exists():
        raise Conflict(
            gettext("Preference %(number)s is on its way back already.") % {"number": preference.pk}
        )
    made = SendBack.objects.create(
        project=preference.project,
        preference=preference,
        annotator=preference.annotator,
        comment=comment,
        by=by,
    )
    record(
        action="send_back.new",
        target=made,
        project=made.project,
        actor=by,
        preference=name_of(preference),
    )
    return made


def may_be_sent_back(preference: Preference, by: User) -> bool:
    """Whether this person may send this answer back, as far as the answer itself goes."""
    return preference.current and preference.voided_at is None and not _why_not(preference, by)


def _why_not(preference: Preference, by: User) -> str:
    annotator = preference.annotator
    has_desk = annotator.user_id is not None and annotator.kind == AnnotatorKind.PERSON
    if not has_desk or preference.assignment_id is None:
        return gettext("It was given by nobody who could be asked again.")
    if annotator.user_id == by.pk:
        return gettext("It is your own answer: change it yourself.")
    if preference.comparison.purpose in AS_GIVEN:
        return gettext("It answers a check, which counts as it was given.")
    return ""


def decline(*, sent: SendBack, by: User, reply: str) -> SendBack:
    """The annotator leaves the answer as it is and says why. Raises Conflict if it is settled."""
    return _settle(sent, SendBackState.DECLINED, by, reply=_said(reply, gettext("A reply")))


def withdraw(*, sent: SendBack, by: User) -> SendBack:
    """A reviewer takes the question back. Raises Conflict where it is settled."""
    return _settle(sent, SendBackState.WITHDRAWN, by)


@transaction.atomic
def _settle(sent: SendBack, state: SendBackState, by: User, **more: str) -> SendBack:
    lock_comparison(sent.preference.comparison_id)
    moved = SendBack.objects.filter(pk=sent.pk).settle(state, **more)
    sent.refresh_from_db()
    if not moved:
        raise Conflict(
            gettext("It was settled before: %(state)s.") % {"state": sent.get_state_display()}
        )
    record(action=f"send_back.{state.value}", target=sent, project=sent.project, actor=by)
    return sent


def _said(text: str, what: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if not 1 <= len(text) <= MAX_COMMENT:
        raise BadInput(
            gettext("%(what)s has 1 to %(most)s characters, not %(seen)s.")
            % {"what": what, "most": MAX_COMMENT, "seen": len(text)}
        )
    require_storable(text)
    return text
