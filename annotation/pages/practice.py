"""Practice and one's own accuracy, for labelers; and the report of a question that is wrong."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _

from annotation.errors import BadInput
from annotation.gold import SHOWN_FROM
from annotation.models import (
    Annotator,
    GoldItem,
    GoldState,
    GoldUse,
    Membership,
    PracticeAnswer,
    Report,
)
from annotation.pages.gold import in_words, snippet_of
from annotation.pages.orders import asked_for_order, form_for, order_from
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import LABEL
from annotation.services.checkrules import CheckRules
from annotation.services.practice import answer_practice, lesson_of, practice_items
from annotation.services.projects import annotator_for
from annotation.services.reports import report_question
from annotation.services.standing import is_warned, own_accuracy


def _me(request: HttpRequest, membership: Membership) -> Annotator:
    return annotator_for(user=user_of(request), project=membership.project)


@project_page(*LABEL)
def practice(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The questions to practise on, and how one does."""
    me = _me(request, membership)
    items = practice_items(me)
    rules = CheckRules.of(membership.project.checks)
    context: dict[str, Any] = {
        "lines": [
            (item, snippet_of(item.comparison.prompt.messages), answer) for item, answer in items
        ],
        "next": next((item for item, answer in items if answer is None), None),
        "accuracy": own_accuracy(me) if rules.gold_every else None,
        "shown_from": SHOWN_FROM,
        "me": me,
        "is_warned": is_warned(me),
        "rules": rules,
    }
    return project_template(request, membership, "pages/practice.html", context)


def _item(membership: Membership, item_id: int) -> GoldItem:
    return get_object_or_404(
        membership.project.gold_items.filter(use=GoldUse.PRACTICE)
        .exclude(state=GoldState.DRAFT)
        .select_related("project", "comparison__prompt", "comparison__batch__scheme"),
        pk=item_id,
    )


@project_page(*LABEL, methods=("GET", "HEAD", "POST"))
def practice_item(request: HttpRequest, membership: Membership, item_id: int) -> HttpResponse:
    """One question, and once it is answered, what the experts say and why."""
    item, me = _item(membership, item_id), _me(request, membership)
    asked = asked_for_order(item.comparison, me)
    error = ""
    if request.method == "POST":
        try:
            answer = order_from(asked, request.POST)
            answer_practice(item=item, annotator=me, rankings=answer.rankings)
        except BadInput as wrong:
            error = wrong.detail
        else:
            return redirect("practice-item", slug=membership.project.slug, item_id=item.pk)
    given = PracticeAnswer.objects.filter(item=item, annotator=me).first()
    context: dict[str, Any] = {
        "item": item,
        "work": form_for(asked, request.POST if error else QueryDict()),
        "error": error,
    }
    if given is not None:
        lesson = lesson_of(given)
        context |= {
            "lesson": lesson,
            "constraints": [
                (one.axis, in_words(one, asked.presented_order), verdict)
                for one, verdict in lesson.constraints
            ],
            "has_axes": len(item.comparison.batch.scheme.axes) > 1,
            "report": Report.objects.filter(comparison=item.comparison, annotator=me).first(),
            "next": next((one for one, answer in practice_items(me) if answer is None), None),
        }
    status = 422 if error else 200
    return project_template(request, membership, "pages/practice_item.html", context, status)


@project_page(*LABEL, methods=("POST",))
def contest(request: HttpRequest, membership: Membership, item_id: int) -> HttpResponse:
    """Say that a practice question is wrong."""
    item = _item(membership, item_id)
    with told(request):
        report_question(
            comparison=item.comparison,
            annotator=_me(request, membership),
            words=request.POST.get("words", ""),
        )
        messages.success(request, _("The lead will read it and answer here."))
    return redirect("practice-item", slug=membership.project.slug, item_id=item.pk)


@project_page(*LABEL, methods=("POST",))
def report(request: HttpRequest, membership: Membership, preference_id: int) -> HttpResponse:
    """Say that a question one has answered is wrong; whatever it was for, the same happens."""
    own = membership.project.preferences.filter(annotator__user=user_of(request), source=None)
    found = get_object_or_404(own.select_related("comparison", "annotator"), pk=preference_id)
    with told(request):
        report_question(
            comparison=found.comparison,
            annotator=found.annotator,
            words=request.POST.get("words", ""),
        )
        messages.success(request, _("The lead will read it and answer here."))
    return redirect("preference", slug=membership.project.slug, preference_id=found.pk)
