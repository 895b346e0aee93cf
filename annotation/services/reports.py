"""Reports: an annotator says that a question itself is wrong, and a lead decides.

Of a gold item a report is a contest. Nothing about it may tell the annotator which of the two it
is, so both are made, answered and worded alike.
"""

from enum import StrEnum

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    Comparison,
    GoldItem,
    GoldState,
    PracticeAnswer,
    Preference,
    Report,
    ReportState,
    User,
)
from annotation.services.audit import record
from annotation.services.batches import retire_comparison
from annotation.services.gold import retire_gold, start_over
from annotation.services.reasons import MAX_REASON
from annotation.services.standing import recover_without
from annotation.storable import require_storable

MAX_WORDS = 2000


class Ruling(StrEnum):
    """What a lead does with a report."""

    TAKE_OUT = "take_out"
    """The question is wrong: nobody is asked it again, and no accuracy counts it."""
    ANSWER_ANEW = "answer_anew"
    """The experts were wrong: they answer again, then old answers are scored by that."""
    DECLINE = "decline"


@transaction.atomic
def report_question(*, comparison: Comparison, annotator: Annotator, words: str) -> Report:
    """Report a question that the annotator has answered; once. Raises BadInput or Conflict."""
    words = _words(words, "Say what is wrong with the question")
    known = {"comparison": comparison, "annotator": annotator}
    practised = PracticeAnswer.objects.filter(item__comparison=comparison, annotator=annotator)
    if not Preference.objects.filter(**known).exists() and not practised.exists():
        raise BadInput(
            gettext("Comparison %(number)s is reported by whoever answered it.")
            % {"number": comparison.pk}
        )
    report, created = Report.objects.get_or_create(
        **known, defaults={"project_id": comparison.project_id, "words": words}
    )
    if not created:
        raise Conflict(
            gettext("Comparison %(number)s is reported already.") % {"number": comparison.pk}
        )
    return report


@transaction.atomic
def decide_report(*, report: Report, ruling: str, reply: str, by: User) -> Report:
    """Take the question out, let experts answer it anew (gold alone), or decline with words.

    Other open reports of the same question are decided with it. Raises BadInput or Conflict.
    """
    if ruling not in list(Ruling):
        raise BadInput(f"A ruling is {', '.join(Ruling)}: not {ruling!r:.40}.")
    reply = _words(reply, "Answer the report in words")
    comparison = Comparison.objects.select_for_update(no_key=True).get(pk=report.comparison_id)
    fresh = Report.objects.select_for_update(no_key=True).get(pk=report.pk)
    if fresh.state != ReportState.OPEN:
        raise Conflict(f"Report {fresh.pk} is {fresh.state} already.")
    item = GoldItem.objects.filter(comparison=comparison).first()
    if ruling == Ruling.ANSWER_ANEW and item is None:
        raise BadInput(gettext("Only a gold question is answered anew by experts."))
    reason = f"reported: {fresh.words}"[:MAX_REASON]
    if ruling == Ruling.ANSWER_ANEW and item is not None:
        start_over(item=item, by=by, reason=reason)
    elif ruling == Ruling.TAKE_OUT:
        _take_out(comparison, item, reason, by)
    if ruling != Ruling.DECLINE and item is not None:
        recover_without(item)
    Report.objects.filter(comparison=comparison, state=ReportState.OPEN).update(
        state=ReportState.DECLINED if ruling == Ruling.DECLINE else ReportState.ACCEPTED,
        reply=reply,
        decided_by=by,
        decided_at=timezone.now(),
    )
    fresh.refresh_from_db()
    record(
        action="report.decide",
        target=fresh,
        project=fresh.project,
        actor=by,
        ruling=str(ruling),
        comparison=comparison.pk,
    )
    return fresh


def _take_out(comparison: Comparison, item: GoldItem | None, reason: str, by: User) -> None:
    if item is None:
        if comparison.retired_at is None:
            retire_comparison(comparison=comparison, by=by, reason=reason)
    elif item.state != GoldState.RETIRED:
        retire_gold(item=item, by=by, reason=reason, is_wrong=True)
    else:
        item.checks.update(counts=False)


def _words(words: str, what: str) -> str:
    words = words.strip()
    if not 1 <= len(words) <= MAX_WORDS:
        raise BadInput(f"{what} in 1 to {MAX_WORDS} characters, not {len(words)}.")
    require_storable(words)
    return words
