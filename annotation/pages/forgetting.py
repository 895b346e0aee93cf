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
from annotation.services.forgetting import called, order_forgetting, preview
from annotation.services.reasons import MAX_REASON

SHOWN = 20


class PersonForm(forms.Form):
    """Whose data: typed, for a project may have thousands of annotators."""

    annotator = forms.CharField(
        label=gettext_lazy("Annotator"),
        max_length=200,
        help_text=gettext_lazy(
            "The pseudonym, the user name, or the id in the dataset they came with, exactly."
        ),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project

    def clean_annotator(self) -> Annotator:
        said = self.cleaned_data["annotator"]
        found = called(self.project, said)
        if not found:
            raise forms.ValidationError(
                _("No annotator is called exactly “%(said)s”.") % {"said": said}
            )
        if len(found) > 1:
            names = ", ".join(_name_of(one) for one in found)
            raise forms.ValidationError(
                _("Several are called so; type the pseudonym of one: %(names)s.") % {"names": names}
            )
        return found[0]


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
        asked = form.cleaned_data["annotator"]
        context["preview"] = preview(asked)
        # by the pseudonym: what was typed may be another's by the time it is confirmed
        context["reason_form"] = OrderForm(initial={"annotator": asked.pseudonym}, project=project)
        context["asked"], context["name"] = asked, _name_of(asked)
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
        made = order_forgetting(by=user_of(request), **form.cleaned_data)
        if made.finished_at:
            messages.success(request, _("The data of this person is deleted."))
        else:
            messages.success(request, _("The name is off; the workers replace the datasets now."))
    return redirect("forget", slug=membership.project.slug)
