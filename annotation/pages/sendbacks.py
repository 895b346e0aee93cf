"""Answers sent back: on the desk of whoever gave them, and on the reviewers' page."""

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _

from annotation.models import Membership, SendBack, SendBackState
from annotation.pages.preferences import ROWS_PER_PAGE, snippet_of
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import LABEL, REVIEW
from annotation.services import sendbacks as service


def visible_to(membership: Membership) -> QuerySet[SendBack]:
    """What came back to a labeler; everybody's for reviewers."""
    found = SendBack.objects.filter(project=membership.project)
    if membership.role not in REVIEW:
        found = found.filter(annotator__user_id=membership.user_id)
    return found


@project_page(*LABEL)
def sent_back(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest first; `state` and `whose` choose, `before` is the last id of the page before."""
    found = visible_to(membership).select_related("annotator", "preference__comparison__prompt")
    is_mine = request.GET.get("whose") == "mine" or membership.role not in REVIEW
    if is_mine:
        found = found.filter(annotator__user_id=membership.user_id)
    state = request.GET.get("state", SendBackState.OPEN.value if is_mine else "all")
    if state in SendBackState.values:
        found = found.filter(state=state)
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 18:
        found = found.filter(pk__lt=int(before))
    page = list(found.order_by("-pk")[: ROWS_PER_PAGE + 1])
    rows = [(one, snippet_of(one.preference.comparison)) for one in page[:ROWS_PER_PAGE]]
    query = request.GET.copy()
    if len(page) > ROWS_PER_PAGE:
        query["before"] = str(rows[-1][0].pk)
    context = {
        "rows": rows,
        "is_mine": is_mine,
        "state": state,
        "states": [("all", _("all")), *((one.value, one.label) for one in SendBackState)],
        "older": query.urlencode() if len(page) > ROWS_PER_PAGE else "",
    }
    return project_template(request, membership, "pages/sent_back.html", context)


@project_page(*REVIEW, methods=("POST",))
def send(request: HttpRequest, membership: Membership, preference_id: int) -> HttpResponse:
    """Send an answer back with a comment; it stands first on its annotator's desk."""
    found = get_object_or_404(membership.project.preferences, pk=preference_id)
    with told(request):
        service.send_back(
            preference=found, by=user_of(request), comment=request.POST.get("comment", "")
        )
        messages.success(request, _("Sent back; it stands first on the labeler's desk."))
    return redirect("preference", slug=membership.project.slug, preference_id=found.pk)


@project_page(*LABEL, methods=("POST",))
def decline(request: HttpRequest, membership: Membership, send_back_id: int) -> HttpResponse:
    """The annotator leaves the answer as it is, with words."""
    found = get_object_or_404(
        membership.project.send_backs.filter(annotator__user=user_of(request)), pk=send_back_id
    )
    with told(request):
        service.decline(sent=found, by=user_of(request), reply=request.POST.get("reply", ""))
        messages.success(request, _("The answer stays as it is; the reviewer reads why."))
    return redirect("sent-back", slug=membership.project.slug)


@project_page(*REVIEW, methods=("POST",))
def withdraw(request: HttpRequest, membership: Membership, send_back_id: int) -> HttpResponse:
    """A reviewer thought again."""
    found = get_object_or_404(membership.project.send_backs, pk=send_back_id)
    with told(request):
        service.withdraw(sent=found, by=user_of(request))
    return redirect("preference", slug=membership.project.slug, preference_id=found.preference_id)
