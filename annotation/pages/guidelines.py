"""The guideline's own pages: read it, write its next version, compare any two, the FAQ below it."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import worddiff
from annotation.errors import BadInput
from annotation.languages import language_name, written_languages
from annotation.models import FaqWords, Guideline, Membership
from annotation.pages.guideline_sheets import sheets_of
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ANY, LABEL, REVIEW
from annotation.services import projects
from annotation.services.guidelines import (
    MAX_ANSWER,
    MAX_QUESTION,
    acknowledge,
    change_entry,
    unread_by,
)
from annotation.worddiff import Piece

TEXT = "text-"
HISTORY = 200
"""Versions that the history lists, the newest first."""
MOST_UNREAD = 100
"""Labelers named who have not read the newest."""


class GuidelineForm(forms.Form):
    """The next version: a text per language of the interface and of the version before."""

    base = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *, guideline: Guideline | None = None) -> None:
        super().__init__(data, initial={"base": guideline.version if guideline else None})
        texts = guideline.texts if guideline else {}
        for code in written_languages(texts):
            self.fields[TEXT + code] = forms.CharField(
                label=_("%(language)s (Markdown)") % {"language": language_name(code)},
                required=False,
                initial=texts.get(code, ""),
                max_length=projects.MAX_GUIDELINE,
                widget=forms.Textarea(attrs={"rows": 12, "lang": code}),
            )
        self.fields["other_language"] = forms.CharField(
            label=_("Another language"),
            required=False,
            max_length=20,
            help_text=_("Its tag, such as: de. Empty where there is none."),
        )
        self.fields["other_text"] = forms.CharField(
            label=_("Text in that language (Markdown)"),
            required=False,
            max_length=projects.MAX_GUIDELINE,
            widget=forms.Textarea(attrs={"rows": 3}),
        )

    def texts(self) -> dict[str, str]:
        """Language -> text, of the cleaned data."""
        data = self.cleaned_data
        found = {
            name.removeprefix(TEXT): data[name] for name in self.fields if name.startswith(TEXT)
        }
        if data["other_language"] or data["other_text"]:
            found[data["other_language"].strip().lower()] = data["other_text"]
        return found


@dataclass(frozen=True)
class Comparison:
    """Two versions in one language."""

    language: str
    name: str
    pieces: list[Piece]
    is_same: bool


def compared(old: Guideline, new: Guideline) -> list[Comparison]:
    """Word by word in every language that either has; a language that one lacks is all new."""
    found = []
    for language in sorted({*old.texts, *new.texts}):
        before = old.whole(language) if language in old.texts else ""
        after = new.whole(language) if language in new.texts else ""
        found.append(
            Comparison(
                language=language,
                name=language_name(language),
                pieces=worddiff.folded(worddiff.changes(before, after), lines=2),
                is_same=before == after,
            )
        )
    return found


@project_page(*ANY)
def guideline(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The version in force; for leads the form of the next."""
    newest = projects.current_guideline(membership.project)
    return _page(request, membership, newest, GuidelineForm(guideline=newest))


def _page(
    request: HttpRequest,
    membership: Membership,
    newest: Guideline | None,
    form: GuidelineForm,
    status: int = 200,
) -> HttpResponse:
    context: dict[str, Any] = {"guideline": newest, "form": form}
    if newest is not None:
        context |= {"sheets": sheets_of(newest), "entries": _entries(newest)}
    return project_template(request, membership, "pages/guideline.html", context, status=status)


def _entries(guideline: Guideline) -> list[dict[str, Any]]:
    """The FAQ for editing: each entry with its words in every language of the guideline."""
    languages = written_languages(guideline.texts)
    return [
        {
            "id": entry["id"],
            "words": [
                {"language": one, "name": language_name(one), **entry["texts"].get(one, {})}
                for one in languages
            ],
        }
        for entry in guideline.faq
    ]


@project_page(*REVIEW, methods=("POST",))
def save(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The next version of the texts. What can't be saved stays in the form."""
    newest = projects.current_guideline(membership.project)
    form = GuidelineForm(request.POST, guideline=newest)
    if form.is_valid():
        with told(request):
            made = projects.new_guideline(
                project=membership.project,
                texts=form.texts(),
                base=form.cleaned_data["base"],
                by=user_of(request),
            )
            messages.success(
                request, _("Guideline %(version)s is in force.") % {"version": made.version}
            )
            return redirect("guideline", slug=membership.project.slug)
    return _page(request, membership, newest, form, status=422)


@project_page(*REVIEW, methods=("POST",))
def preview(request: HttpRequest, membership: Membership) -> HttpResponse:
    """What the form would make: how it reads, and what changes; nothing is kept."""
    newest = projects.current_guideline(membership.project)
    form = GuidelineForm(request.POST, guideline=newest)
    context: dict[str, Any] = {"wrong": [], "project": membership.project}
    if not form.is_valid():
        context["wrong"] = [
            f"{form.fields[n].label}: {' '.join(map(str, s))}" for n, s in form.errors.items()
        ]
        return render(request, "guideline/preview.html", context)
    try:
        texts = projects.checked_texts(form.texts())
    except BadInput as error:
        return render(request, "guideline/preview.html", context | {"wrong": [error.detail]})
    drafted = Guideline(texts=texts, faq=newest.faq if newest else [])
    context["sheets"] = sheets_of(drafted)
    context["comparisons"] = compared(newest or Guideline(), drafted)
    return render(request, "guideline/preview.html", context)


@project_page(*ANY)
def history(request: HttpRequest, membership: Membership) -> HttpResponse:
    """All versions, and any two of them word by word: ?from=2&to=5; at first the newest two."""
    versions = list(
        membership.project.guidelines.select_related("created_by")
        .annotate(num_readings=Count("readings"))
        .order_by("-version")[:HISTORY]
    )
    by_version = {str(one.version): one for one in versions}
    new = by_version.get(request.GET.get("to", ""), versions[0] if versions else None)
    old = by_version.get(request.GET.get("from", ""), versions[1] if len(versions) > 1 else None)
    context: dict[str, Any] = {"versions": versions, "old": old, "new": new}
    if versions and membership.role in REVIEW:
        missing = list(unread_by(versions[0])[: MOST_UNREAD + 1])
        context |= {"unread": missing[:MOST_UNREAD], "more_unread": len(missing) > MOST_UNREAD}
    if old and new:
        context["comparisons"] = compared(old, new)
    elif new:
        context["sheets"] = sheets_of(new)
    return project_template(request, membership, "pages/guideline_history.html", context)


@project_page(*LABEL, methods=("POST",))
def read(request: HttpRequest, membership: Membership, guideline_id: int) -> HttpResponse:
    """An annotator has read a version, and says so."""
    found = get_object_or_404(membership.project.guidelines, pk=guideline_id)
    annotator = projects.annotator_for(user=user_of(request), project=membership.project)
    acknowledge(annotator=annotator, guideline=found)
    if request.headers.get("HX-Request"):
        return render(request, "guideline/noted.html", {"version": found.version})
    said = _("Noted: you have read version %(version)s.") % {"version": found.version}
    messages.success(request, said)
    return redirect("label", slug=membership.project.slug)


class EntryForm(forms.Form):
    """A question of the FAQ and its answer, in each language of the interface and the guideline."""

    def __init__(self, data: Any, *, guideline: Guideline | None) -> None:
        super().__init__(data)
        self.languages = written_languages(guideline.texts if guideline else {})
        for code in self.languages:
            self.fields[f"question-{code}"] = forms.CharField(
                required=False, max_length=MAX_QUESTION, label=gettext_lazy("Question")
            )
            self.fields[f"answer-{code}"] = forms.CharField(
                required=False, max_length=MAX_ANSWER, label=gettext_lazy("Answer")
            )

    def texts(self) -> dict[str, FaqWords]:
        """Language -> words, of the cleaned data."""
        return {
            code: FaqWords(
                question=self.cleaned_data[f"question-{code}"],
                answer=self.cleaned_data[f"answer-{code}"],
            )
            for code in self.languages
        }


@project_page(*REVIEW, methods=("POST",))
def entry(
    request: HttpRequest, membership: Membership, guideline_id: int, entry_id: int
) -> HttpResponse:
    """Reword an entry of the FAQ, or withdraw it: a new version either way.

    guideline_id: the version that was on the page; the newest one is what changes.
    """
    project = membership.project
    get_object_or_404(project.guidelines, pk=guideline_id)
    newest = projects.current_guideline(project)
    if newest is None or entry_id not in [one["id"] for one in newest.faq]:
        raise Http404("The FAQ has no such entry, or has it no more.")
    form = EntryForm(request.POST, guideline=newest)
    if not form.is_valid():
        for sentences in form.errors.values():
            messages.error(request, " ".join(map(str, sentences)))
        return redirect("guideline", slug=project.slug)
    with told(request):
        texts = {} if "withdraw" in request.POST else form.texts()
        made = change_entry(project=project, entry=entry_id, texts=texts, by=user_of(request))
        messages.success(
            request, _("Guideline %(version)s is in force.") % {"version": made.version}
        )
    return redirect("guideline", slug=project.slug)
