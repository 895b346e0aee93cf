"""What waits for a person in a project: small counts by index, never more than MOST_WAITING."""

from dataclasses import dataclass

from annotation.models import Membership, Question, QuestionState, SendBack
from annotation.permissions import LABEL, REVIEW

MOST_WAITING = 100
"""From here on the page says 99+."""


@dataclass(frozen=True)
class Desk:
    """What stands first on an annotator's desk."""

    sent_back: int
    """Their answers that reviewers sent back to them."""
    answers: int
    """Answers to their questions that they have not read."""


def desk_of(membership: Membership) -> Desk:
    """What waits for the member as an annotator."""
    return Desk(sent_back=sent_back_waiting(membership), answers=_answers(membership))


def sent_back_waiting(membership: Membership) -> int:
    """How many of the member's own answers wait to be looked at again."""
    own = SendBack.objects.open().filter(
        project=membership.project_id, annotator__user=membership.user_id
    )
    return own[:MOST_WAITING].count()


def questions_waiting(membership: Membership) -> int:
    """For leads questions that nobody has answered, for annotators answers they have not read."""
    if membership.role in REVIEW:
        unanswered = Question.objects.filter(
            project=membership.project_id, state=QuestionState.OPEN
        )
        return unanswered[:MOST_WAITING].count()
    return _answers(membership) if membership.role in LABEL else 0


def _answers(membership: Membership) -> int:
    unread = Question.objects.filter(
        project=membership.project_id,
        annotator__user=membership.user_id,
        state=QuestionState.ANSWERED,
    )
    return unread[:MOST_WAITING].count()
