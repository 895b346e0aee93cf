"""Who works in a project and by which rules: members, scheme; and new projects."""

import re
from dataclasses import fields
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from annotation.errors import BadInput, NotAllowed
from annotation.models import Membership, Role, Scheme, User
from annotation.pages.label import sample_works
from annotation.pages.shell import project_page, project_template, signed_in, told, user_of
from annotation.permissions import ADMINISTER, may_found
from annotation.services import projects
from annotation.services.schemes import Options


class Names(forms.CharField):
    """Words parted by commas, as a list."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        return [word.strip() for word in text.replace("，", ",").split(",") if word.strip()]

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def validate(self, value: Any) -> None:
        if self.required and not value:
            raise forms.ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        """The service checks the words."""


class PoolForm(forms.Form):
    """What a member is given to do."""

    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=Role.choices)
    languages = Names(
        label=gettext_lazy("Languages"),
        required=False,
        help_text=gettext_lazy("Such as: en, zh. Empty means any."),
    )
    skills = Names(label=gettext_lazy("Skills"), required=False)


class MemberForm(PoolForm):
    """A new member, by username."""

    username = forms.CharField(label=gettext_lazy("Username"), max_length=150)
    field_order = ["username", "role", "languages", "skills"]


class Ratings(forms.CharField):
    """A line per rating: its name, then its ends, such as `correct 1-5`."""

    def to_python(self, value: Any) -> Any:
        lines = [line.strip() for line in (super().to_python(value) or "").splitlines()]
        return [self._rating(line) for line in lines if line]

    def _rating(self, line: str) -> dict[str, Any]:
        found = re.fullmatch(r"(.+?)\s*[:：]?\s+(\d{1,2})\s*[-–~]\s*(\d{1,2})", line)
        if found is None:
            raise forms.ValidationError(
                _("A rating is a name and two numbers, such as: correct 1-5. Seen: %(line)s")
                % {"line": line[:60]}
            )
        return {"name": found[1], "low": int(found[2]), "high": int(found[3])}

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return "\n".join(f"{one.name} {one.low}-{one.high}" for one in value)

    def validate(self, value: Any) -> None:
        """No rating is fine."""

    def run_validators(self, value: Any) -> None:
        """The service checks names and ends."""


class SchemeForm(forms.Form):
    """What an answer may look like."""

    axes = Names(
        label=gettext_lazy("Axes"),
        help_text=gettext_lazy("One question per axis, such as: helpful, safe."),
    )
    allow_tie = forms.BooleanField(label=gettext_lazy("Ties"), required=False)
    allow_both_bad = forms.BooleanField(label=gettext_lazy("Both bad"), required=False)
    allow_cannot_tell = forms.BooleanField(label=gettext_lazy("Cannot tell"), required=False)
    allow_partial = forms.BooleanField(
        label=gettext_lazy("A list may be ranked in part; without a place never means last"),
        required=False,
    )
    acceptability = forms.BooleanField(
        label=gettext_lazy("A line below which no answer is good enough"), required=False
    )
    ideal = forms.BooleanField(
        label=gettext_lazy("Labelers may write a better answer, which becomes a demonstration"),
        required=False,
    )
    strength_steps = forms.TypedChoiceField(
        label=gettext_lazy("How much better (of two answers)"),
        coerce=int,
        required=False,
        choices=[
            (0, gettext_lazy("not asked")),
            (2, gettext_lazy("2 steps: slightly, clearly")),
            (4, gettext_lazy("4 steps: negligibly, slightly, better, significantly")),
            (7, gettext_lazy("7 steps from -3 to 3, a tie in the middle")),
        ],
    )
    reason = forms.ChoiceField(
        label=gettext_lazy("Reason in words"),
        required=False,
        choices=[
            ("optional", gettext_lazy("optional")),
            ("required", gettext_lazy("required")),
            ("off", gettext_lazy("not asked")),
        ],
    )
    ratings = Ratings(
        label=gettext_lazy("Ratings of each answer"),
        required=False,
        help_text=gettext_lazy("A line each, such as: correct 1-5"),
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    flags = Names(
        label=gettext_lazy("Flags of each answer"),
        required=False,
        help_text=gettext_lazy("Such as: unsafe, wrong language, personal data"),
    )

    def scheme(self) -> dict[str, Any]:
        """The cleaned data as projects.new_scheme takes it."""
        data = dict(self.cleaned_data)
        plain = ("axes", "allow_tie", "allow_both_bad", "allow_cannot_tell")
        for name in ("strength_steps", "reason"):
            data[name] = data[name] or getattr(Options(), name)
        return {name: data.pop(name) for name in plain} | {"options": data}


class ProjectForm(forms.Form):
    """A new project."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=120)
    slug = forms.SlugField(
        label=gettext_lazy("Short name"),
        max_length=60,
        help_text=gettext_lazy("Letters, digits, - and _; it stands in the address for ever."),
    )
    description = forms.CharField(
        label=gettext_lazy("Description"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    axes = Names(
        label=gettext_lazy("Axes"),
        initial="overall",
        help_text=gettext_lazy("One question per axis, such as: helpful, safe."),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def new_project(request: HttpRequest) -> HttpResponse:
    """Make a project; its maker is its first admin."""
    user = user_of(request)
    if not may_found(user):
        raise NotAllowed(_("Only staff and admins of a project may make projects."))
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with told(request):
            made = projects.create_project(by=user, **form.cleaned_data)
            messages.success(request, _("%(name)s is ready.") % {"name": made.name})
            return redirect("members", slug=made.slug)
    return render(request, "pages/project_new.html", {"form": form})


@project_page(*ADMINISTER)
def members(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Members with their roles, and the scheme in force."""
    project = membership.project
    scheme = projects.current_scheme(project)
    options = Options.of(scheme.options)
    people = project.memberships.select_related("user").order_by(Lower("user__username"))
    context = {
        "rows": [(one, _pool_form(one)) for one in people],
        "member_form": MemberForm(initial={"role": Role.LABELER}),
        "scheme": scheme,
        "scheme_form": SchemeForm(
            initial={
                "axes": scheme.axes,
                "allow_tie": scheme.allow_tie,
                "allow_both_bad": scheme.allow_both_bad,
                "allow_cannot_tell": scheme.allow_cannot_tell,
                **{one.name: getattr(options, one.name) for one in fields(options)},
            }
        ),
        "samples": sample_works(scheme, options),
    }
    return project_template(request, membership, "pages/members.html", context)


def _pool_form(member: Membership) -> PoolForm:
    return PoolForm(
        initial={"role": member.role, "languages": member.languages, "skills": member.skills},
        auto_id=f"member-{member.pk}-%s",
    )


def _complain(request: HttpRequest, form: forms.Form) -> None:
    for name, sentences in form.errors.items():
        label = form.fields[name].label if name in form.fields else name
        messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")


@project_page(*ADMINISTER, methods=("POST",))
def add(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Let a user into the project."""
    form = MemberForm(request.POST)
    if not form.is_valid():
        _complain(request, form)
        return redirect("members", slug=membership.project.slug)
    asked = form.cleaned_data
    user = User.objects.filter(username=asked.pop("username"), is_active=True).first()
    if user is None:
        name = form.data["username"][:150]
        messages.error(request, _("There is no user %(name)s.") % {"name": name})
        return redirect("members", slug=membership.project.slug)
    with told(request):
        projects.add_member(project=membership.project, user=user, by=user_of(request), **asked)
        messages.success(request, _("%(name)s is a member now.") % {"name": user.username})
    return redirect("members", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def change(request: HttpRequest, membership: Membership, member_id: int) -> HttpResponse:
    """Give a member another role, languages or skills."""
    found = get_object_or_404(membership.project.memberships, pk=member_id)
    form = PoolForm(request.POST)
    if not form.is_valid():
        _complain(request, form)
        return redirect("members", slug=membership.project.slug)
    with told(request):
        projects.change_member(membership=found, by=user_of(request), **form.cleaned_data)
        messages.success(request, _("%(name)s is changed.") % {"name": found.user.username})
    return redirect("members", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def remove(request: HttpRequest, membership: Membership, member_id: int) -> HttpResponse:
    """Take the project from a member; answers stay."""
    found = get_object_or_404(membership.project.memberships, pk=member_id)
    with told(request):
        projects.remove_member(membership=found, by=user_of(request))
        messages.success(request, _("%(name)s is no member now.") % {"name": found.user.username})
    return redirect("members", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def scheme(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The next version of the scheme; comparisons that are open keep theirs."""
    form = SchemeForm(request.POST)
    if not form.is_valid():
        _complain(request, form)
        return redirect("members", slug=membership.project.slug)
    with told(request):
        made = projects.new_scheme(project=membership.project, by=user_of(request), **form.scheme())
        messages.success(request, _("Scheme %(version)s is in force.") % {"version": made.version})
    return redirect("members", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def scheme_preview(request: HttpRequest, membership: Membership) -> HttpResponse:
    """What labelers would see of the scheme that is being filled in; nothing is kept."""
    form = SchemeForm(request.POST)
    if not form.is_valid():
        sentences = [
            f"{form.fields[n].label}: {' '.join(map(str, s))}" for n, s in form.errors.items()
        ]
        return render(request, "pages/scheme_preview.html", {"wrong": sentences})
    asked = form.scheme()
    try:
        options = Options.of(asked.pop("options"))
        works = sample_works(Scheme(project=membership.project, **asked), options)
    except BadInput as error:
        return render(request, "pages/scheme_preview.html", {"wrong": [error.detail]})
    context = {"samples": works, "project": membership.project}
    return render(request, "pages/scheme_preview.html", context)
