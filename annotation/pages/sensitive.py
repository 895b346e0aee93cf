"""Sensitive comparisons: a labeler's own wish, and the lead's cap on a day."""

from dataclasses import dataclass

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Annotator, Batch, Membership
from annotation.pages.shell import project_page, told, user_of
from annotation.permissions import ADMINISTER, LABEL
from annotation.services.projects import annotator_for
from annotation.services.queue import refuse_sensitive
from annotation.services.sensitive import MOST_PER_DAY, given_today, set_cap


@dataclass(frozen=True)
class Standing:
    """What the side of the label page says of sensitive comparisons."""

    refuses: bool
    per_day: int | None
    given: int


def standing_of(annotator: Annotator) -> Standing | None:
    """None in a project without sensitive batches."""
    if not Batch.objects.filter(project=annotator.project_id, sensitive=True).exists():
        return None
    per_day = annotator.project.sensitive_per_day
    return Standing(
        refuses=annotator.refuses_sensitive,
        per_day=per_day,
        given=0 if per_day is None else given_today(annotator),
    )


class CapForm(forms.Form):
    """How many a day may bring."""

    per_day = forms.IntegerField(
        label=gettext_lazy("For one labeler in a day, at most"),
        required=False,
        min_value=1,
        max_value=MOST_PER_DAY,
        help_text=gettext_lazy(
            "Handed out counts, answered or not. Empty: any number. Each labeler can also refuse "
            "them all, on the label page."
        ),
    )


@project_page(*LABEL, methods=("POST",))
def wish(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Give me none of these from now on, or some again."""
    annotator = annotator_for(user=user_of(request), project=membership.project)
    refuses = request.POST.get("refuses") == "on"
    refuse_sensitive(annotator=annotator, refuses=refuses)
    if refuses:
        messages.success(request, _("You are given no sensitive comparisons from now on."))
    else:
        messages.success(request, _("You are given sensitive comparisons, too, from now on."))
    return redirect("label", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def cap(request: HttpRequest, membership: Membership) -> HttpResponse:
    """How many sensitive comparisons a day may bring to one labeler."""
    project, form = membership.project, CapForm(request.POST)
    if not form.is_valid():
        for sentences in form.errors.values():
            messages.error(request, " ".join(str(one) for one in sentences))
        return redirect("batches", slug=project.slug)
    with told(request):
        set_cap(project=project, per_day=form.cleaned_data["per_day"], by=user_of(request))
        messages.success(request, _("The cap on sensitive comparisons is set."))
    return redirect("batches", slug=project.slug)
