"""Search: comparisons by their text and by what is known of them, and what is done with many."""

from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from annotation.asking import MADE_AS, label_of
from annotation.errors import BadInput
from annotation.markdown import plain
from annotation.models import Comparison, Membership, Project, Split, VersionKind
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import REVIEW, WATCH
from annotation.services import search as found_by
from annotation.services.search import MOST_AT_ONCE, Wanted
from annotation.services.versions import versions_of

ROWS_PER_PAGE = 50
SNIPPET_CHARACTERS = 160
ANSWER_CHARACTERS = 90


class SearchForm(forms.Form):
    """What is looked for; every field may be empty."""

    text = forms.CharField(
        label=gettext_lazy("Text"),
        required=False,
        max_length=500,
        help_text=gettext_lazy('Words anywhere in it; "in quotation marks" behind each other.'),
        widget=forms.TextInput(attrs={"type": "search"}),
    )
    version = forms.ChoiceField(label=gettext_lazy("Written by"), required=False)
    annotator = forms.CharField(
        label=gettext_lazy("Answered by"), required=False, max_length=40,
        help_text=gettext_lazy("The annotator's name on these pages."),
    )  # fmt: skip
    flag = forms.ChoiceField(label=gettext_lazy("Flag"), required=False)
    tag = forms.ChoiceField(label=gettext_lazy("Tag"), required=False)
    language = forms.CharField(label=gettext_lazy("Language"), required=False, max_length=12)
    split = forms.ChoiceField(label=gettext_lazy("Split"), required=False)
    made_as = forms.ChoiceField(label=gettext_lazy("Asked beside"), required=False)
    score_from = forms.FloatField(label=gettext_lazy("Score from"), required=False)
    score_to = forms.FloatField(label=gettext_lazy("Score to"), required=False)
    disputed = forms.BooleanField(label=gettext_lazy("People disagree"), required=False)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        every = ("", _("all"))
        policies = versions_of(project).filter(kind=VersionKind.POLICY).order_by("-pk")
        menus: dict[str, list[tuple[Any, Any]]] = {
            "version": [(one.pk, one.name) for one in policies],
            "flag": [(flag, flag) for flag in _flags_of(project)],
            "tag": [(name, name) for name in found_by.tags_of(project)],
            "split": list(Split.choices),
            "made_as": [(selector, label_of(selector)) for selector in MADE_AS],
        }
        for name, choices in menus.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = [every, *choices]

    def wanted(self) -> Wanted:
        """Of a form that is valid."""
        version = self.cleaned_data["version"]
        return replace(
            Wanted(**{**self.cleaned_data, "version": None}),
            version=int(version) if version else None,
        )


@dataclass(frozen=True)
class Found:
    """One line of what was found."""

    comparison: Comparison
    asked: str
    answers: list[str]
    preferences: list[int]
    """Ids of the answers to it that stand."""
    tags: list[str]


@project_page(*WATCH)
def search(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The form, and the newest that fit; `before` is the last id of the page before."""
    form = SearchForm(request.GET or None, project=membership.project)
    rows: list[Found] = []
    older = ""
    if request.GET and form.is_valid():
        try:
            fitting = found_by.found(membership.project, form.wanted())
            rows, older = _page(request, fitting)
        except BadInput as error:
            form.add_error(None, error.detail)
    context = {
        "form": form,
        "rows": rows,
        "older": older,
        "asked": bool(request.GET) and form.is_valid(),
        "may_act": membership.role in REVIEW,
        "tags": found_by.tags_of(membership.project),
        "query": request.GET.urlencode(),
        "most": MOST_AT_ONCE,
    }
    status = 400 if form.errors else 200
    return project_template(request, membership, "pages/search.html", context, status=status)


@project_page(*REVIEW, methods=("POST",))
def act(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Tag what was chosen, or all that was found, take a tag away, or ask for one more answer."""
    project, by = membership.project, user_of(request)
    with told(request):
        ids = _chosen(request, project)
        name = request.POST.get("name", "")
        match request.POST.get("act"):
            case "tag":
                count = found_by.tag_comparisons(project=project, comparisons=ids, name=name, by=by)
                words = ngettext(
                    "%(count)s comparison is tagged now.",
                    "%(count)s comparisons are tagged now.",
                    count,
                )
            case "untag":
                count = found_by.untag_comparisons(
                    project=project, comparisons=ids, name=name, by=by
                )
                words = ngettext(
                    "The tag is gone from %(count)s comparison.",
                    "The tag is gone from %(count)s comparisons.",
                    count,
                )
            case "ask":
                count = found_by.ask_again(project=project, comparisons=ids, by=by)
                words = ngettext(
                    "%(count)s comparison waits for one more answer.",
                    "%(count)s comparisons wait for one more answer.",
                    count,
                )
            case other:
                raise BadInput(_("There is no such act: %(seen)s.") % {"seen": repr(other)})
        messages.success(request, words % {"count": count})
    query = request.POST.get("query", "")
    return redirect(f"{reverse('search', args=[project.slug])}{'?' if query else ''}{query}")


def _chosen(request: HttpRequest, project: Project) -> list[int]:
    """The ids that stand in the form, or with `all` the newest that its query finds."""
    if request.POST.get("all") != "on":
        ids = [one for one in request.POST.getlist("comparison") if one.isascii()]
        return [int(one) for one in ids if one.isdigit() and len(one) < 18]
    form = SearchForm(QueryDict(request.POST.get("query", "")), project=project)
    if not form.is_valid():
        raise BadInput(_("The search that was shown can't be repeated: look again."))
    return list(found_by.found(project, form.wanted()).values_list("pk", flat=True)[:MOST_AT_ONCE])


def _page(request: HttpRequest, fitting: Any) -> tuple[list[Found], str]:
    """One page of rows, and the query of the next; empty where there is none."""
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 18:
        fitting = fitting.filter(pk__lt=int(before))
    some = list(
        fitting.select_related("prompt", "batch").prefetch_related("entries__completion", "tags")[
            : ROWS_PER_PAGE + 1
        ]
    )
    shown = some[:ROWS_PER_PAGE]
    answers = found_by.answers_to([one.pk for one in shown])
    query = request.GET.copy()
    if len(some) > ROWS_PER_PAGE:
        query["before"] = str(shown[-1].pk)
    rows = [
        Found(
            comparison=one,
            asked=short(plain(one.prompt.messages[-1]["content"]), SNIPPET_CHARACTERS),
            answers=[short(each.completion.text, ANSWER_CHARACTERS) for each in one.entries.all()],
            preferences=answers[one.pk],
            tags=[tag.name for tag in one.tags.all()],
        )
        for one in shown
    ]
    return rows, query.urlencode() if len(some) > ROWS_PER_PAGE else ""


def short(text: str, most: int) -> str:
    """The beginning of a text, on one line."""
    return Truncator(" ".join(text.split())).chars(most)


def _flags_of(project: Project) -> list[str]:
    """Every flag that a scheme of the project knows or knew."""
    schemes = project.schemes.values_list("options", flat=True)
    return sorted({flag for options in schemes for flag in (options or {}).get("flags", ())})
