"""The overview of a project, its control page: the loop live, jobs, versions, rules, audit."""

from typing import Any

from django import forms
from django.contrib import messages
from django.forms.models import model_to_dict
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import (
    JobStatus,
    Membership,
    Project,
    RetrainRule,
    Slot,
)
from annotation.pages import audit
from annotation.pages.advice import Loop, advice_for
from annotation.pages.due import what_is_due
from annotation.pages.job_form import key_of, new_key
from annotation.pages.jobs import StartForm
from annotation.pages.judgement import what_is_missing
from annotation.pages.loop import counts_of, promotions_in_force, stations
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER
from annotation.services.loop import RULE_FIELDS, change_loop, change_rule
from annotation.services.versions import slots_to_roll_back
from annotation.services.wishes import ask_for_training

ACTIVE = (JobStatus.RUNNING, JobStatus.QUEUED)
RECENT_JOBS = 8
RECENT_AUDIT = 12


class RuleForm(forms.Form):
    """When a reward model is due."""

    enabled = forms.BooleanField(label=gettext_lazy("Train by rule"), required=False)
    after_preferences = forms.IntegerField(
        label=gettext_lazy("After so many new answers"),
        required=False,
        min_value=1,
        max_value=1_000_000,
    )
    every_minutes = forms.IntegerField(
        label=gettext_lazy("At most once in so many minutes"),
        required=False,
        min_value=1,
        max_value=1_000_000,
    )
    ppo_after_reward = forms.BooleanField(
        label=gettext_lazy("Run PPO after a new reward model"), required=False
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("after_preferences") is None and data.get("every_minutes") is None:
            raise forms.ValidationError(_("Say after how many answers, or how often, or both."))
        return data


def state_of(project: Project) -> dict[str, Any]:
    """What the live part of the page shows."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    rule = RetrainRule.objects.filter(project=project).first()
    due = what_is_due(project, rule)
    in_force = promotions_in_force(project)
    active = list(
        project.jobs.filter(status__in=ACTIVE).select_related("requested_by").order_by("pk")[:20]
    )
    counts = counts_of(project, midnight)
    reward = in_force[Slot.REWARD].version if Slot.REWARD in in_force else None
    return {
        "loop": Loop(
            project=project,
            in_force=in_force,
            active=active,
            num_open=counts.open,
            due=due,
            rule=rule,
            now=timezone.now(),
        ),
        "reward": reward,
        "missing": what_is_missing(project, reward) if reward else None,
        "due": due,
        "rule": rule,
        "counts": counts,
        "active": sorted(active, key=lambda job: (job.status != JobStatus.RUNNING, job.pk)),
        "recent": project.jobs.exclude(status__in=ACTIVE).order_by("-pk")[:RECENT_JOBS],
        "stations": stations(project, counts, in_force, active, due),
        "slots": [(slot, in_force.get(slot.value)) for slot in Slot],
        "poll_seconds": 2 if active else 8,
    }


@project_page()
def overview(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The whole page; everybody in the project may look, admins may act."""
    return _page(request, membership, StartForm(project=membership.project))


def _page(
    request: HttpRequest, membership: Membership, start_form: StartForm, status: int = 200
) -> HttpResponse:
    project = membership.project
    context = state_of(project)
    if membership.role in ADMINISTER:
        context["advice"] = advice_for(context["loop"])
        context["to_roll_back"] = slots_to_roll_back(project)
        context["rule_form"] = RuleForm(
            initial=model_to_dict(context["rule"], RULE_FIELDS) if context["rule"] else None
        )
        context["start_form"] = start_form
        context["wish_key"] = new_key()
        entries = project.audit_entries.select_related("actor").order_by("-pk")
        context["audit"] = audit.lines(project, list(entries[:RECENT_AUDIT]))
    return project_template(request, membership, "pages/overview.html", context, status)


@project_page(*ADMINISTER, methods=("POST",))
def start(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Queue a job; what cannot be queued stays in the form as it was typed."""
    project = membership.project
    form = StartForm(request.POST, project=project)
    if form.is_valid():
        asked = form.cleaned_data
        inputs = asked["inputs"] or {}
        if asked["paths"] and isinstance(inputs, dict):
            inputs = inputs | {"data": asked["paths"]}
        with told(request):
            job = ask_for_training(
                project=project,
                kind=asked["kind"],
                config=asked["config"] or {},
                inputs=inputs,
                lane=asked["lane"],
                by=user_of(request),
                key=key_of(request.POST),
            )
            messages.success(request, _("Job %(number)s is queued.") % {"number": job.pk})
            return redirect("overview", slug=project.slug)
    for name, sentences in form.errors.items():
        messages.error(request, f"{name}: {' '.join(str(one) for one in sentences)}")
    return _page(request, membership, form, status=422)


@project_page()
def live(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The part that htmx asks for again every few seconds."""
    context = state_of(membership.project)
    if membership.role in ADMINISTER:
        context["advice"] = advice_for(context["loop"])
        context["to_roll_back"] = slots_to_roll_back(membership.project)
    return project_template(request, membership, "pages/overview_live.html", context)


@project_page(*ADMINISTER, methods=("POST",))
def rule(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Change when a reward model is due."""
    form = RuleForm(request.POST)
    if form.is_valid():
        with told(request):
            change_rule(project=membership.project, changes=form.cleaned_data, by=user_of(request))
            messages.success(request, _("The rule is saved."))
    else:
        for sentences in form.errors.values():
            messages.error(request, " ".join(str(sentence) for sentence in sentences))
    return redirect("overview", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def auto_promote(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Whether a version that passes its gate is put in force without an admin."""
    wanted = request.POST.get("auto_promote") == "on"
    with told(request):
        change_loop(
            project=membership.project, changes={"auto_promote": wanted}, by=user_of(request)
        )
        if wanted:
            messages.success(request, _("A version that passes its gate is promoted by itself."))
        else:
            messages.success(request, _("An admin promotes."))
    return redirect("overview", slug=membership.project.slug)
