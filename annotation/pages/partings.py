"""Where a reward model and people part most, and a button that has reviewers look at these."""

import csv
import io
from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from annotation.models import (
    Comparison,
    Membership,
    ModelVersion,
    Project,
    Review,
    ReviewState,
    Slot,
    Split,
    VersionKind,
)
from annotation.pages.preferences import snippet_of
from annotation.pages.quality import WHOSE
from annotation.pages.search import ANSWER_CHARACTERS, short
from annotation.pages.sheets import plain
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import REVIEW, WATCH
from annotation.services.disagreements import send_to_review
from annotation.services.mixes import scored_by
from annotation.services.partings import Parting, Partings, partings, texts_of
from annotation.services.search import Wanted, answers_to
from annotation.services.versions import in_force, versions_of

ROWS_PER_PAGE = 50
OPEN_SPLITS = [one for one in Split.choices if one[0] != Split.TEST]
COLUMNS = (
    "comparison", "axis", "size", "margin", "votes", "for_people", "against", "by_people",
    "score_by_people", "by_model", "score_by_model",
)  # fmt: skip


class PartingsForm(forms.Form):
    """What the list is of; every field may be empty."""

    reward = forms.ChoiceField(label=gettext_lazy("Reward model"), required=False)
    version = forms.ChoiceField(label=gettext_lazy("Written by"), required=False)
    split = forms.ChoiceField(label=gettext_lazy("Split"), required=False)
    language = forms.CharField(label=gettext_lazy("Language"), required=False, max_length=12)
    least_votes = forms.IntegerField(
        label=gettext_lazy("At least votes"), required=False, min_value=1, max_value=1000
    )
    whose = forms.ChoiceField(label=gettext_lazy("Whose answers"), required=False)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rewards = {str(one.pk): one for one in scored_by(project)}
        now = in_force(project, Slot.REWARD)
        self.usual = self.rewards.get(str(now.pk)) if now else None
        self.usual = self.usual or next(iter(self.rewards.values()), None)
        policies = versions_of(project).filter(kind=VersionKind.POLICY)
        usual = _("the one in force")
        menus: dict[str, list[tuple[Any, Any]]] = {
            "reward": [("", usual), *((pk, one.name) for pk, one in self.rewards.items())],
            "version": [("", _("all")), *((one.pk, one.name) for one in policies)],
            "split": [("", _("all")), *OPEN_SPLITS],
            "whose": [(name, label) for name, (label, _kinds) in WHOSE.items()],
        }
        for name, choices in menus.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = choices

    @property
    def model(self) -> ModelVersion | None:
        """Of a form that is valid: whose scores; None where nothing is scored."""
        return self.rewards.get(self.cleaned_data["reward"], self.usual)

    def partings(self, project: Project) -> Partings:
        """Of a form that is valid."""
        if self.model is None:
            return Partings([], 0, False)
        asked = self.cleaned_data
        wanted = Wanted(split=asked["split"], language=asked["language"])
        if asked["version"]:
            wanted = replace(wanted, version=int(asked["version"]))
        return partings(
            project,
            self.model,
            kinds=WHOSE[asked["whose"] or "people"][1],
            wanted=wanted,
            least_votes=asked["least_votes"] or 1,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    parting: Parting
    asked: str
    by_people: str
    by_model: str
    votes: list[int]
    """Ids of the answers that stand."""
    state: str
    """Of its review; empty where it has none that matters."""


@project_page(*WATCH)
def disagreements(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The farthest apart first; `from` is how many lines were shown before."""
    project = membership.project
    form = PartingsForm(request.GET, project=project)
    found = form.partings(project) if form.is_valid() else Partings([], 0, False)
    begun = request.GET.get("from", "")
    start = int(begun) if begun.isascii() and begun.isdigit() and len(begun) < 7 else 0
    some = found.found[start : start + ROWS_PER_PAGE]
    query = request.GET.copy()
    query["from"] = str(start + ROWS_PER_PAGE)
    context = {
        "form": form,
        "model": form.model if form.is_valid() else None,
        "rows": _rows(some),
        "found": found,
        "num_found": len(found.found),
        "farther": query.urlencode() if start + ROWS_PER_PAGE < len(found.found) else "",
        "query": request.GET.urlencode(),
        "may_send": membership.role in REVIEW,
    }
    status = 400 if form.errors else 200
    return project_template(request, membership, "pages/disagreements.html", context, status)


def _rows(some: list[Parting]) -> list[Row]:
    units = [one.comparison for one in some]
    rows = Comparison.objects.filter(pk__in=units).select_related("prompt")
    comparisons = {one.pk: one for one in rows}
    texts, answers = texts_of(some), answers_to(units)
    states = dict(
        Review.objects.filter(comparison__in=units)
        .exclude(state=ReviewState.ABOVE)
        .values_list("comparison", "state")
    )
    return [
        Row(
            parting=one,
            asked=snippet_of(comparisons[one.comparison]),
            by_people=short(texts[one.by_people], ANSWER_CHARACTERS),
            by_model=short(texts[one.by_model], ANSWER_CHARACTERS),
            votes=answers[one.comparison],
            state=states.get(one.comparison, ""),
        )
        for one in some
    ]


@project_page(*REVIEW, methods=("POST",))
def send(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Have reviewers decide what was ticked; pressed twice it sends once."""
    project = membership.project
    with told(request):
        chosen = [one for one in request.POST.getlist("comparison") if one.isascii()]
        ids = [int(one) for one in chosen if one.isdigit() and len(one) < 18]
        count = send_to_review(project=project, comparisons=ids, by=user_of(request))
        words = ngettext(
            "%(count)s comparison was sent to review.",
            "%(count)s comparisons were sent to review.",
            count,
        )
        messages.success(request, words % {"count": count})
        if left := len(set(ids)) - count:
            words = ngettext(
                "%(count)s stays as it is: it waits already, was decided, or is none to be sent.",
                "%(count)s stay as they are: they wait already, were decided, or are none to be "
                "sent.",
                left,
            )
            messages.info(request, words % {"count": left})
    query = request.POST.get("query", "")
    address = reverse("analysis-disagreements", args=[project.slug])
    return redirect(f"{address}?{query}" if query else address)


@project_page(*WATCH)
def numbers(request: HttpRequest, membership: Membership) -> HttpResponse:
    """All that is found as CSV, in full digits."""
    form = PartingsForm(request.GET, project=membership.project)
    found = form.partings(membership.project).found if form.is_valid() else []
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for one in found:
        values = (getattr(one, name) for name in COLUMNS)
        writer.writerow([plain(value) if isinstance(value, str) else value for value in values])
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="disagreements.csv"'},
    )
