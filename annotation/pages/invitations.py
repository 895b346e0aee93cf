"""Invitations by link: an admin makes and revokes them, whoever holds one joins by it."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.forms import BaseUserCreationForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from annotation.errors import BadInput, Conflict, NotAllowed
from annotation.limits import Counter, Limit, address_of, count, seconds_to_wait
from annotation.models import Invitation, InvitationState, Membership, Role, User
from annotation.pages.home import remember_language
from annotation.pages.members import PoolForm
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER
from annotation.services.invitations import (
    MAX_USES,
    accept_invitation,
    find_invitation,
    invite,
    join_with_new_account,
    require_not_removed,
    revoke_invitation,
    state_of,
)
from annotation.sign_in import WINDOW_SECONDS, wait_in_words

SHOWN = 100
GUESSES = Limit("invitation", 30, WINDOW_SECONDS)
"""Links that lead nowhere, of one address."""
WHY_CLOSED = {
    InvitationState.USED_UP: gettext_lazy(
        "Everybody it was meant for has joined. Ask whoever sent it for another."
    ),
    InvitationState.EXPIRED: gettext_lazy("Its time is over. Ask whoever sent it for another."),
    InvitationState.REVOKED: gettext_lazy("It was taken back. Ask whoever sent it for another."),
}


class InviteForm(PoolForm):
    """As what, how many, how long, and a note on whom it is for."""

    uses = forms.IntegerField(
        label=gettext_lazy("How many people may join by it"),
        initial=1,
        min_value=1,
        max_value=MAX_USES,
    )
    days = forms.TypedChoiceField(
        label=gettext_lazy("It ends"),
        coerce=int,
        initial=7,
        choices=[
            (1, gettext_lazy("in a day")),
            (7, gettext_lazy("in a week")),
            (30, gettext_lazy("in 30 days")),
        ],
    )
    note = forms.CharField(
        label=gettext_lazy("Note"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("Whom it is for, such as an e-mail address. Only admins see it."),
    )


class AccountForm(BaseUserCreationForm[User]):
    """A new account: a name, a password twice, the language of the interface."""

    class Meta:
        model = User
        fields = ("username", "language")
        labels = {"language": gettext_lazy("Language")}
        help_texts = {"username": gettext_lazy("Letters, digits and @ . + - _")}
        widgets = {"language": forms.Select(choices=settings.LANGUAGES)}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs["autocomplete"] = "username"
        self.fields["password1"].help_text = _("8 characters or more, and not a common one.")
        self.fields["password2"].help_text = ""


@project_page(*ADMINISTER, methods=("GET", "HEAD", "POST"))
def invitations(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The project's invitations; a new one's link is on this one answer and nowhere else."""
    project = membership.project
    context: dict[str, Any] = {"form": InviteForm(initial={"role": Role.LABELER})}
    if request.method == "POST":
        context["form"] = form = InviteForm(request.POST)
        if form.is_valid():
            with told(request):
                _row, secret = invite(project=project, by=user_of(request), **form.cleaned_data)
                context["link"] = request.build_absolute_uri(reverse("join", args=[secret]))
                context["form"] = InviteForm(initial={"role": Role.LABELER})
    rows = project.invitations.select_related("created_by", "project").order_by("-pk")[:SHOWN]
    context["rows"] = [(row, state_of(row)) for row in rows]
    return project_template(request, membership, "pages/invitations.html", context)


@project_page(*ADMINISTER, methods=("POST",))
def revoke(request: HttpRequest, membership: Membership, invitation_id: int) -> HttpResponse:
    """Close a link; who came by it stays."""
    found = get_object_or_404(membership.project.invitations, pk=invitation_id)
    revoke_invitation(invitation=found, by=user_of(request))
    messages.success(request, _("The invitation is revoked."))
    return redirect("invitations", slug=membership.project.slug)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def join(request: HttpRequest, secret: str) -> HttpResponse:
    """Show what a link leads to (GET uses nothing up), and join by it (POST)."""
    guesses = [Counter(GUESSES, address_of(request))]
    if seconds := seconds_to_wait(guesses):
        return _too_many(request, seconds)
    invitation = find_invitation(secret)
    if invitation is None:
        count(guesses)
        raise Http404("There is no such invitation.")
    if isinstance(request.user, User) and _is_member(request.user, invitation):
        messages.info(request, _("You are a member of this project already."))
        return redirect("overview", slug=invitation.project.slug)
    if (state := state_of(invitation)) != InvitationState.OPEN:
        return _closed(request, state)
    try:
        if isinstance(request.user, User):
            require_not_removed(request.user, invitation)
        if request.method != "POST":
            return _door(request, invitation, AccountForm(initial={"language": get_language()}))
        if isinstance(request.user, User):
            accept_invitation(invitation=invitation, user=request.user)
        else:
            form = AccountForm(request.POST)
            if not form.is_valid():
                return _door(request, invitation, form, status=422)
            try:
                join_with_new_account(invitation=invitation, user=form.save(commit=False))
            except BadInput as error:  # the name went to somebody else a moment ago
                form.add_error("username", error.detail)
                return _door(request, invitation, form, status=422)
            login(request, form.instance)
    except NotAllowed as error:
        context = {"heading": _("This invitation is not for you any more"), "detail": error.detail}
        return render(request, "pages/error.html", context, status=403)
    except Conflict:  # somebody was faster
        return _closed(request, state_of(invitation))
    return _welcome(request, invitation)


def _too_many(request: HttpRequest, seconds: int) -> HttpResponse:
    context = {"heading": _("Not so fast"), "detail": wait_in_words(seconds)}
    response = render(request, "pages/error.html", context, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response


def _is_member(user: User, invitation: Invitation) -> bool:
    return Membership.objects.filter(user=user, project=invitation.project).exists()


def _door(
    request: HttpRequest, invitation: Invitation, form: AccountForm, status: int = 200
) -> HttpResponse:
    context = {"invitation": invitation, "form": form, "here": request.path}
    return render(request, "pages/join.html", context, status=status)


def _closed(request: HttpRequest, state: InvitationState) -> HttpResponse:
    """410: it was there once."""
    heading = _("This invitation is %(state)s") % {"state": state.label}
    context = {"heading": heading, "detail": WHY_CLOSED.get(state, "")}
    return render(request, "pages/error.html", context, status=410)


def _welcome(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    """Straight to work."""
    user, project = user_of(request), invitation.project
    said = _("Welcome to %(project)s.") % {"project": project.name}
    messages.success(request, said)
    page = "label" if invitation.role == Role.LABELER else "overview"
    response = redirect(page, slug=project.slug)
    if user.language:
        remember_language(response, user.language)
    return response
