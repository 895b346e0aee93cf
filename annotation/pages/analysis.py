"""Analysis: what a project's votes and scores show, each plot with its numbers and its votes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.models import Membership, Project
from annotation.pages.behind import Behind, list_of
from annotation.pages.leanings import (
    length_sheet,
    length_votes,
    position_sheet,
    position_votes,
)
from annotation.pages.mixes import language_sheet, language_votes, score_sheet, score_votes
from annotation.pages.quality import WHOSE
from annotation.pages.sheets import Sheet, csv_of
from annotation.pages.shell import project_page, project_template
from annotation.pages.weekly import agreement_sheet, agreement_votes
from annotation.permissions import WATCH


@dataclass(frozen=True, slots=True)
class Part:
    """One plot of the page. Both functions take the project, the kinds of annotators that count,
    and what else the address asks for."""

    title: str | Promise
    sheet: Callable[[Project, Iterable[str], QueryDict], Sheet]
    votes: Callable[[Project, Iterable[str], QueryDict], Behind]


PARTS = {
    "agreement": Part(_("Agreement over time"), agreement_sheet, agreement_votes),
    "position": Part(_("Position"), position_sheet, position_votes),
    "length": Part(_("Length"), length_sheet, length_votes),
    "languages": Part(_("Languages"), language_sheet, language_votes),
    "scores": Part(_("Scores by writer"), score_sheet, score_votes),
}


@project_page(*WATCH)
def analysis(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The page at once; its plots come after it, one by one, or one alone where it is asked for."""
    whose = whose_of(request)
    name = request.GET.get("part", "")
    context: dict[str, Any] = {
        "whose": [(key, label, key == whose) for key, (label, _kinds) in WHOSE.items()],
        "chosen": whose,
        "parts": [(key, part.title) for key, part in PARTS.items()],
    }
    if name in PARTS:
        sheet = PARTS[name].sheet(membership.project, WHOSE[whose][1], request.GET)
        context |= {"sheet": sheet, "part": name, "title": PARTS[name].title}
    is_part = name in PARTS and request.headers.get("HX-Request")
    template = "pages/analysis_sheet.html" if is_part else "pages/analysis.html"
    return project_template(request, membership, template, context)


@project_page(*WATCH)
def numbers(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The numbers of one plot as CSV."""
    name, part = _part(request)
    sheet = part.sheet(membership.project, WHOSE[whose_of(request)][1], request.GET)
    return csv_of(sheet, f"{membership.project.slug}-{name}")


@project_page(*WATCH)
def votes(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The votes that one figure is made of; `before` is the last id of the page before."""
    name, part = _part(request)
    whose = whose_of(request)
    behind = part.votes(membership.project, WHOSE[whose][1], request.GET)
    context = {
        **list_of(behind, request.GET),
        "choices": [(choice, _narrowed(request, choice.name)) for choice in behind.choices],
        "whose": whose,
        "part": name,
    }
    return project_template(request, membership, "pages/analysis_votes.html", context)


def whose_of(request: HttpRequest) -> str:
    """Whose answers count; an unknown word counts as people's."""
    chosen = request.GET.get("whose", "people")
    return chosen if chosen in WHOSE else "people"


def _part(request: HttpRequest) -> tuple[str, Part]:
    name = request.GET.get("part", next(iter(PARTS)))
    if name not in PARTS:
        raise Http404
    return name, PARTS[name]


def _narrowed(request: HttpRequest, won: str) -> str:
    """The query of the same list, narrowed to a part of it."""
    query = request.GET.copy()
    query.pop("before", None)
    query["won"] = won
    return query.urlencode()
