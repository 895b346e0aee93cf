"""Pages of a person rather than a project: signing in, my projects, language, API tokens."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import LoginView, PasswordChangeView
from django.core.exceptions import NON_FIELD_ERRORS
from django.db import transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation.models import Membership, Project, Role, Scope, User
from annotation.pages.shell import signed_in, told, user_of
from annotation.permissions import projects_of, scopes_of
from annotation.services.audit import record
from annotation.services.tokens import in_days, issue_token, revoke_token
from annotation.services.walk import WALKED
from annotation.sign_in import LIMITED, PasswordForm, SignInForm, remember_browser

LANGUAGE_COOKIE_SECONDS = 365 * 24 * 3600


class SignIn(LoginView):
    """The door. A person's own language comes along."""

    template_name = "pages/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True
    http_method_names = ["get", "head", "post", "options"]

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.has_error(NON_FIELD_ERRORS, LIMITED):
            response.status_code = 429
        return response

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        remember_browser(response, form.get_user().get_username())
        if language := form.get_user().language:
            remember_language(response, language)
        return response


class PasswordChange(PasswordChangeView):
    """One's own password. All other sessions of the person end with the old one."""

    template_name = "pages/password.html"
    form_class = PasswordForm
    success_url = reverse_lazy("home")
    http_method_names = ["get", "head", "post", "options"]

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        user = user_of(self.request)
        record(action="user.password", target=user, actor=user, usable=True)
        messages.success(
            self.request, _("Your password is changed. Other browsers are signed out.")
        )
        return response


class TokenForm(forms.Form):
    """A new API token: what it is called, what it may be used for, where and how long."""

    name = forms.CharField(label=gettext_lazy("What is it for?"), max_length=80)
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("It may"),
        choices=Scope.choices,
        initial=[Scope.READ],
        widget=forms.CheckboxSelectMultiple,
    )
    project = forms.ModelChoiceField(
        label=gettext_lazy("Project"),
        queryset=Project.objects.none(),
        required=False,
        empty_label=gettext_lazy("All my projects"),
    )
    days = forms.TypedChoiceField(
        label=gettext_lazy("It ends"),
        coerce=int,
        empty_value=None,
        required=False,
        choices=[
            (30, gettext_lazy("in 30 days")),
            (90, gettext_lazy("in 90 days")),
            (365, gettext_lazy("in a year")),
            ("", gettext_lazy("when I revoke it")),
        ],
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        allowed = scopes_of(user)
        self.fields["scopes"].choices = [  # type: ignore[attr-defined]
            (scope.value, scope.label) for scope in allowed
        ]
        self.fields["project"].queryset = projects_of(user)  # type: ignore[attr-defined]


def remember_language(response: HttpResponseBase, language: str) -> None:
    """The cookie that LocaleMiddleware reads."""
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=LANGUAGE_COOKIE_SECONDS,
        samesite="Lax",
        httponly=True,
        secure=bool(settings.SESSION_COOKIE_SECURE),
    )


@require_POST
@never_cache
def language(request: HttpRequest) -> HttpResponse:
    """Set the interface language, for this browser and for the person who is signed in."""
    code = request.POST.get("language", "")
    back = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    response = redirect(back if is_ours else "home")
    if code in dict(settings.LANGUAGES):
        remember_language(response, code)
        if isinstance(request.user, User):
            request.user.language = code
            request.user.save(update_fields=["language"])
    return response


@require_safe
@signed_in
def home(request: HttpRequest) -> HttpResponse:
    """My projects; a labeler with a single one goes straight to work."""
    user = user_of(request)
    roles = dict(
        Membership.objects.filter(user=user).values_list("project_id", "role").order_by("pk")
    )
    mine = [project.pk for project in projects_of(user)]
    projects = list(
        Project.objects.filter(pk__in=mine)
        .annotate(
            waiting=Count(
                "comparisons",
                filter=Q(
                    comparisons__open_slots__gt=0,
                    comparisons__retired_at__isnull=True,
                    comparisons__purpose__in=WALKED,
                ),
            )
        )
        .order_by("name", "pk")
    )
    if len(projects) == 1 and roles.get(projects[0].pk) == Role.LABELER:
        return redirect("label", slug=projects[0].slug)
    cards = [
        {"project": project, "role": Role(roles.get(project.pk, Role.ADMIN))}
        for project in projects
    ]
    return render(request, "pages/home.html", {"cards": cards})


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def tokens(request: HttpRequest) -> HttpResponse:
    """My API tokens; a new one's text is on this one answer and nowhere else."""
    user = user_of(request)
    context: dict[str, Any] = {"form": TokenForm(user=user)}
    if request.method == "POST":
        context["form"] = form = TokenForm(request.POST, user=user)
        if form.is_valid():
            asked = form.cleaned_data
            with told(request):
                _token, context["secret"] = issue_token(
                    user=user,
                    name=asked["name"],
                    scopes=asked["scopes"],
                    project=asked["project"],
                    expires_at=in_days(asked["days"]),
                )
                context["form"] = TokenForm(user=user)
    context["tokens"] = user.api_tokens.select_related("project").order_by("-pk")
    return render(request, "pages/tokens.html", context)


@require_POST
@signed_in
def revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    """Close one of my tokens."""
    token = get_object_or_404(user_of(request).api_tokens, pk=token_id)
    revoke_token(token=token, by=user_of(request))
    messages.success(request, _("%(name)s is revoked.") % {"name": token.name})
    return redirect("tokens")
