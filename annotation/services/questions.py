"""Questions to the leads: asked, answered, closed, published; and an item put aside meanwhile.

    open ──answer──▶ answered ──close (the asker has read it)──▶ closed
      └──close (withdrawn, or put away by a lead)──────────────────▲

An item that is put aside gives its slot back and does not come to the asker again until none of
their questions about it is open; then it is a released lease like any other. Whoever changes a
state takes the comparison's row first, as the queue does.
"""

import time
from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict, NotAllowed
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Comparison,
    FaqWords,
    Question,
    QuestionState,
    User,
)
from annotation.services.audit import record
from annotation.services.guidelines import add_entry
from annotation.services.leases import MAY_COME_AGAIN, give_back, lock_comparison
from annotation.services.projects import lock_project
from annotation.storable import require_storable

MAX_TEXT = 2_000
MAX_OPEN = 50
"""Of one annotator in a project."""


@transaction.atomic
def ask(
    *, annotator: Annotator, comparison: Comparison, text: str, put_aside: bool = False
) -> Question:
    """Ask about a comparison that the annotator was given; the same words again are one question.

    put_aside: give the lease back until the question is closed. Raises NotAllowed for a comparison
    that was never theirs, Conflict for an item that is answered or skipped and for too many
    questions.
    """
    text = _said(text, gettext("A question"))
    lock_comparison(comparison.pk)
    given = Assignment.objects.filter(comparison=comparison, annotator=annotator).first()
    if given is None:
        raise NotAllowed(
            gettext("Comparison %(number)s was never given to you.") % {"number": comparison.pk}
        )
    if put_aside:
        _put_aside(given)
    mine = Question.objects.filter(
        project=annotator.project_id, annotator=annotator, state=QuestionState.OPEN
    )
    if again := mine.filter(comparison=comparison, text=text).first():
        return again
    if mine[:MAX_OPEN].count() >= MAX_OPEN:
        raise Conflict(
            gettext("%(count)s of your questions are open; wait for answers or withdraw some.")
            % {"count": MAX_OPEN}
        )
    question = Question.objects.create(
        project_id=annotator.project_id, comparison=comparison, annotator=annotator, text=text
    )
    record(
        action="question.ask",
        target=question,
        project=annotator.project,
        actor=annotator.user,
        comparison=comparison.pk,
        put_aside=put_aside,
    )
    return question


@transaction.atomic
def answer(*, question: Question, text: str, by: User) -> Question:
    """Answer an open question; the asker's desk says so. Raises Conflict where it is not open."""
    text = _said(text, gettext("An answer"))
    _move(
        question,
        QuestionState.OPEN,
        state=QuestionState.ANSWERED,
        answer=text,
        answered_by=by,
        answered_at=timezone.now(),
    )
    record(action="question.answer", target=question, project=question.project, actor=by)
    return question


@transaction.atomic
def close(*, question: Question, by: User) -> Question:
    """Read, withdrawn or put away; closing it twice is closing it once."""
    lock_comparison(question.comparison_id)
    question.refresh_from_db()
    if question.state == QuestionState.CLOSED:
        return question
    before = question.state
    _move(question, before, state=QuestionState.CLOSED, closed_at=timezone.now())
    record(
        action="question.close",
        target=question,
        project=question.project,
        actor=by,
        before=before,
    )
    return question


@transaction.atomic
def publish(*, question: Question, texts: Mapping[str, FaqWords], by: User) -> Question:
    """Take a question up into the guideline's FAQ, in a lead's words: a new version of it.

    Raises Conflict for one without an answer, and for one that was published before.
    """
    lock_project(question.project)
    question.refresh_from_db()
    if not question.answer:
        raise Conflict(gettext("Question %(number)s has no answer yet.") % {"number": question.pk})
    if question.published_in is not None:
        raise Conflict(
            gettext("Question %(number)s stands in guideline %(version)s already.")
            % {"number": question.pk, "version": question.published_in.version}
        )
    guideline, entry = add_entry(project=question.project, texts=texts, by=by)
    question.published_in = guideline
    question.save(update_fields=["published_in"])
    record(
        action="question.publish",
        target=question,
        project=question.project,
        actor=by,
        guideline=guideline.version,
        entry=entry,
    )
    return question


def _put_aside(given: Assignment) -> None:
    """End the lease without an answer and keep the item from its annotator. Lock first."""
    mine = Assignment.objects.filter(pk=given.pk)
    if give_back(mine, AssignmentState.ASIDE):
        return
    if not mine.filter(state__in=(*MAY_COME_AGAIN, AssignmentState.ASIDE)).update(
        state=AssignmentState.ASIDE
    ):
        raise Conflict(gettext("This comparison is answered or skipped already."))


def _move(question: Question, before: str, **changes: object) -> None:
    """Change a question that is in the state `before`, and let an item that was put aside return
    to its asker once nothing about it is open."""
    lock_comparison(question.comparison_id)
    if not Question.objects.filter(pk=question.pk, state=before).update(**changes):
        question.refresh_from_db()
        raise Conflict(
            gettext("Question %(number)s was settled before: %(state)s.")
            % {"number": question.pk, "state": question.get_state_display()}
        )
    question.refresh_from_db()
    same = {"comparison": question.comparison_id, "annotator": question.annotator_id}
    if Question.objects.filter(**same, state=QuestionState.OPEN).exists():
        return
    aside = Assignment.objects.filter(**same, state=AssignmentState.ASIDE)
    if aside.update(state=AssignmentState.RELEASED):
        # the asker's walk has passed it: to be met again it must look freshly opened
        Comparison.objects.filter(pk=question.comparison_id).update(opened_at=time.time())


def _said(text: str, what: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if not 1 <= len(text) <= MAX_TEXT:
        raise BadInput(
            gettext("%(what)s has 1 to %(most)s characters, not %(seen)s.")
            % {"what": what, "most": MAX_TEXT, "seen": len(text)}
        )
    require_storable(text)
    return text
