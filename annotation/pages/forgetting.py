"""Delete a person's data: look first, then confirm."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Annotator, Forgotten, Membership, Project
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER
from annotation.services.forgetting import forget_person, is_quick, preview, replace_all
from annotation.services.hints import wake_workers_on_commit
from annotation.services.reasons import MAX_REASON

SHOWN = 20


class PersonForm(forms.Form):
    """Whose data."""

    annotator = forms.ModelChoiceField(
        label=gettext_lazy("Annotator"),
        queryset=Annotator.objects.none(),
        to_field_name="pseudonym",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        annotators = self.fields["annotator"]
        assert isinstance(annotators, forms.ModelChoiceField)
        known = Annotator.objects.filter(project=project, forgotten=None).select_related("user")
        annotators.queryset = known.order_by("pseudonym")
        annotators.label_from_instance = _name_of  # type: ignore[method-assign, assignment]


class OrderForm(PersonForm):
    """And why."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=MAX_REASON)


def _name_of(annotator: Annotator) -> str:
    """An admin must know whom they delete: names are told here, as on the page of members."""
    name = annotator.user.username if annotator.user else annotator.external_id
    return f"{annotator.pseudonym} · {name}" if name else annotator.pseudonym


@project_page(*ADMINISTER)
def people(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The form; with somebody chosen what it would do; and who was forgotten before."""
    project = membership.project
    is_asked = "annotator" in request.GET
    form = PersonForm(request.GET if is_asked else None, project=project)
    context: dict[str, Any] = {"form": form}
    if is_asked and form.is_valid():
        context["preview"] = preview(form.cleaned_data["annotator"])
        context["reason_form"] = OrderForm(initial=form.cleaned_data, project=project)
        context["asked"] = form.cleaned_data["annotator"]
    done = Forgotten.objects.filter(project=project).select_related("annotator", "by")
    context["done"] = list(done.prefetch_related("tombstones__snapshot").order_by("-pk")[:SHOWN])
    return project_template(request, membership, "pages/forget.html", context)


@project_page(*ADMINISTER, methods=("POST",))
def order(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Do it; datasets that hold many rows are left to the workers."""
    form = OrderForm(request.POST, project=membership.project)
    if not form.is_valid():
        for name, sentences in form.errors.items():
            label = form.fields[name].label if name in form.fields else name
            messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")
        return redirect("forget", slug=membership.project.slug)
    with told(request):
        made = forget_person(by=user_of(request), **form.cleaned_data)
        if is_quick(made):
            replace_all(made.pk)
            messages.success(request, _("The data of this person is deleted."))
        else:
            wake_workers_on_commit()
            messages.success(request, _("The name is off; the workers replace the datasets now."))
    return redirect("forget", slug=membership.project.slug)
