"""Void all answers of one annotator in a range of time: look first, then confirm."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import BadInput
from annotation.models import Annotator, Membership, Project, RangeVoid
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import REVIEW
from annotation.services.reasons import MAX_REASON
from annotation.services.voiding import order_range_void, preview

ORDERS_SHOWN = 20


def _moment() -> forms.DateTimeInput:
    return forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


class RangeForm(forms.Form):
    """Whose answers, and from when to when."""

    annotator = forms.ModelChoiceField(
        label=gettext_lazy("Annotator"),
        queryset=Annotator.objects.none(),
        to_field_name="pseudonym",
    )
    since = forms.DateTimeField(label=gettext_lazy("From"), widget=_moment())
    until = forms.DateTimeField(label=gettext_lazy("Until"), widget=_moment())

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        annotators = self.fields["annotator"]
        assert isinstance(annotators, forms.ModelChoiceField)
        annotators.queryset = Annotator.objects.filter(project=project).order_by("pseudonym")


class OrderForm(RangeForm):
    """And why."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=MAX_REASON)


@project_page(*REVIEW)
def voids(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The form; with a whole range what voiding it would do; and the orders of before."""
    project = membership.project
    is_asked = {"annotator", "since", "until"} <= request.GET.keys()
    form = RangeForm(
        request.GET if is_asked else None,
        project=project,
        initial={"annotator": request.GET.get("annotator", "")},
    )
    context: dict[str, Any] = {"form": form}
    if is_asked and form.is_valid():
        asked = form.cleaned_data
        try:
            context["preview"] = preview(asked["annotator"], asked["since"], asked["until"])
            context["reason_form"] = OrderForm(initial=asked, project=project)
        except BadInput as error:
            form.add_error(None, error.detail)
    orders = RangeVoid.objects.filter(project=project).select_related("annotator", "by")
    context["orders"] = list(orders.order_by("-pk")[:ORDERS_SHOWN])
    return project_template(request, membership, "pages/voids.html", context)


@project_page(*REVIEW, methods=("POST",))
def order(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Do it."""
    form = OrderForm(request.POST, project=membership.project)
    if not form.is_valid():
        for name, sentences in form.errors.items():
            label = form.fields[name].label if name in form.fields else name
            messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")
        return redirect("voids", slug=membership.project.slug)
    with told(request):
        made = order_range_void(by=user_of(request), **form.cleaned_data)
        if made.finished_at:
            messages.success(request, _("Voided answers: %(count)s.") % {"count": made.num_voided})
        else:
            messages.success(
                request,
                _("Voided so far: %(count)s; the workers go on with the rest.")
                % {"count": made.num_voided},
            )
    return redirect("voids", slug=membership.project.slug)
