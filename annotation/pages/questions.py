"""Questions: asked from the desk, answered by leads, published in the FAQ, read by the asker."""

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from annotation import markdown
from annotation.errors import BadInput, Conflict
from annotation.languages import language_name, reader_language
from annotation.models import Assignment, Membership, Question, QuestionState
from annotation.pages.guidelines import EntryForm
from annotation.pages.items import item_of
from annotation.pages.label import show_next
from annotation.pages.preferences import ROWS_PER_PAGE, snippet_of
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import LABEL, REVIEW
from annotation.services import questions as service
from annotation.services.projects import annotator_for, current_guideline


def visible_to(membership: Membership) -> QuerySet[Question]:
    """A labeler's own questions; everybody's for leads."""
    found = Question.objects.filter(project=membership.project)
    if membership.role not in REVIEW:
        found = found.filter(annotator__user_id=membership.user_id)
    return found


@project_page(*LABEL)
def questions(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest first; `state` and `whose` choose, `before` is the last id of the page before."""
    is_lead = membership.role in REVIEW
    found = visible_to(membership).select_related("annotator", "comparison__prompt", "published_in")
    is_mine = request.GET.get("whose") == "mine" or not is_lead
    if is_mine:
        found = found.filter(annotator__user_id=membership.user_id)
    state = request.GET.get("state", "all" if is_mine else QuestionState.OPEN.value)
    if state in QuestionState.values:
        found = found.filter(state=state)
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 18:
        found = found.filter(pk__lt=int(before))
    page = list(found.order_by("-pk")[: ROWS_PER_PAGE + 1])
    rows = [(one, snippet_of(one.comparison)) for one in page[:ROWS_PER_PAGE]]
    query = request.GET.copy()
    if len(page) > ROWS_PER_PAGE:
        query["before"] = str(rows[-1][0].pk)
    context = {
        "rows": rows,
        "is_mine": is_mine,
        "state": state,
        "states": [("all", _("all")), *((one.value, one.label) for one in QuestionState)],
        "older": query.urlencode() if len(page) > ROWS_PER_PAGE else "",
    }
    return project_template(request, membership, "pages/questions.html", context)


@project_page(*LABEL)
def question(request: HttpRequest, membership: Membership, question_id: int) -> HttpResponse:
    """One question with its item as the asker saw it; leads answer and publish here."""
    found = _question(membership, question_id)
    guideline = current_guideline(membership.project)
    given = Assignment.objects.get(comparison=found.comparison_id, annotator=found.annotator_id)
    context: dict[str, Any] = {
        "question": found,
        "item": item_of(given),
        "answer": markdown.render(found.answer),
        "is_own": found.annotator.user_id == membership.user_id,
        "words": [
            {
                "language": code,
                "name": language_name(code),
                **(
                    {"question": found.text, "answer": found.answer}
                    if code == reader_language()
                    else {}
                ),
            }
            for code in EntryForm({}, guideline=guideline).languages
        ],
    }
    return project_template(request, membership, "pages/question.html", context)


def _question(membership: Membership, question_id: int) -> Question:
    return get_object_or_404(
        visible_to(membership).select_related(
            "annotator", "comparison__prompt", "published_in", "project"
        ),
        pk=question_id,
    )


@project_page(*LABEL, methods=("POST",))
def ask(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """Ask about an item of one's own, and go on with it or put it aside."""
    given = get_object_or_404(
        Assignment.objects.select_related("comparison"),
        pk=assignment_id,
        project=membership.project,
        annotator__user=user_of(request),
    )
    put_aside = request.POST.get("then") == "aside"
    is_fragment = bool(request.headers.get("HX-Request"))
    try:
        service.ask(
            annotator=annotator_for(user=user_of(request), project=membership.project),
            comparison=given.comparison,
            text=request.POST.get("text", ""),
            put_aside=put_aside,
        )
    except (BadInput, Conflict) as error:
        if put_aside and is_fragment:
            return show_next(request, membership, warning=error.detail)
        if is_fragment:
            return _beside(request, {"error": error.detail})
        messages.error(request, error.detail)
        return redirect("label", slug=membership.project.slug)
    if put_aside and is_fragment:
        return show_next(request, membership, said=_("Asked and put aside. Here is the next."))
    if is_fragment:
        return _beside(request, {})
    messages.success(request, _("Your question is with the lead."))
    if request.POST.get("then") == "stay":
        return redirect("questions", slug=membership.project.slug)
    return redirect("label", slug=membership.project.slug)


def _beside(request: HttpRequest, context: dict[str, str]) -> HttpResponse:
    """Words in the panel beside the task, which stays as it is."""
    response = render(request, "label/asked.html", context)
    response.headers["HX-Retarget"] = "#asked"
    response.headers["HX-Reswap"] = "innerHTML"
    return response


@project_page(*REVIEW, methods=("POST",))
def answer(request: HttpRequest, membership: Membership, question_id: int) -> HttpResponse:
    """A lead's answer; the asker's desk says that it is there."""
    found = _question(membership, question_id)
    with told(request):
        service.answer(question=found, text=request.POST.get("text", ""), by=user_of(request))
        messages.success(request, _("Answered; it stands on the asker's desk."))
    return _back_to(found)


@project_page(*LABEL, methods=("POST",))
def close(request: HttpRequest, membership: Membership, question_id: int) -> HttpResponse:
    """Read, withdrawn or put away."""
    found = _question(membership, question_id)
    with told(request):
        service.close(question=found, by=user_of(request))
    return redirect("questions", slug=membership.project.slug)


@project_page(*REVIEW, methods=("POST",))
def publish(request: HttpRequest, membership: Membership, question_id: int) -> HttpResponse:
    """Take it up into the FAQ below the guideline, in the lead's words."""
    found = _question(membership, question_id)
    form = EntryForm(request.POST, guideline=current_guideline(membership.project))
    if not form.is_valid():
        for sentences in form.errors.values():
            messages.error(request, " ".join(map(str, sentences)))
        return _back_to(found)
    with told(request):
        made = service.publish(question=found, texts=form.texts(), by=user_of(request))
        assert made.published_in is not None
        messages.success(
            request,
            _("Guideline %(version)s is in force.") % {"version": made.published_in.version},
        )
    return _back_to(found)


def _back_to(found: Question) -> HttpResponse:
    return redirect("question", slug=found.project.slug, question_id=found.pk)
