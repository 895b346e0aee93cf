"""Answers: the list with its filters, and one answer with its lineage both ways."""

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from django.contrib import messages
from django.db.models import Exists, OuterRef, Q, QuerySet, TextChoices
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import markdown
from annotation.models import (
    AnnotatorKind,
    Comparison,
    Completion,
    CompletionJudgment,
    Decision,
    Generation,
    GoldUse,
    LiveThread,
    Membership,
    Outcome,
    Preference,
    Project,
    Prompt,
    Purpose,
    Ranking,
    Report,
    Review,
    Role,
    SendBack,
    SendBackState,
    Split,
)
from annotation.pages.answers import letters
from annotation.pages.export_words import bucket_name
from annotation.pages.label import turns_of
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import LABEL, REVIEW
from annotation.services import gold
from annotation.services.decisions import rankings_of
from annotation.services.lineage import lineage_of_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from annotation.services.schemes import STRENGTH_WORDS, Options
from annotation.services.sendbacks import may_be_sent_back

ROWS_PER_PAGE = 50
SNIPPET_CHARACTERS = 90
READ_CHARACTERS = 2000
"""Of a text, for a snippet: a page of long ones would take a second to be read as Markdown."""
MOST_SEND_BACKS = 20
SOURCES_SHOWN = 100
"""Of a project, the newest."""
STATES = {
    "valid": (gettext_lazy("Valid"), Q(current=True, voided_at__isnull=True)),
    "voided": (gettext_lazy("Voided"), Q(voided_at__isnull=False)),
    "surplus": (
        gettext_lazy("Kept, not counted"),
        Q(current=True, counted=False, voided_at__isnull=True, source__isnull=True),
    ),
    "superseded": (gettext_lazy("Revised since"), Q(current=False)),
}


@dataclass(frozen=True)
class Filter:
    """One menu above the list: only these names and values reach the query."""

    name: str
    label: str
    chosen: str
    choices: list[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One line of the list."""

    preference: Preference
    snippet: str
    said: str


@dataclass(frozen=True)
class Shown:
    """One completion of an answer: where it stood, what it got, who wrote it."""

    letter: str
    completion: Completion
    html: SafeString
    places: list[str]
    judgment: CompletionJudgment | None
    generations: list[Generation]


def visible_to(membership: Membership) -> QuerySet[Preference]:
    """All of the project's answers, or a labeler's own."""
    answers = Preference.objects.filter(project=membership.project)
    if membership.role == Role.LABELER:
        answers = answers.filter(annotator__user_id=membership.user_id)
    return answers


def said(ranking: Ranking | AxisRanking, order: list[int], levels: int = 0) -> str:
    """A ranking in the letters of the page it was given on: B > A = C, and what was said with it.

    levels: how many strengths the scheme has on a side.
    """
    if ranking.outcome in (Outcome.BOTH_BAD, Outcome.CANNOT_TELL):
        return str(Outcome(ranking.outcome).label)
    more = []
    words = dict[float, Any](enumerate(STRENGTH_WORDS.get(levels, ()), start=1))
    if len(ranking.strengths) == 1 and ranking.strengths[0] in words:
        more.append(str(words[ranking.strengths[0]]))
    if ranking.acceptable is not None:
        more.append(_("good enough: %(count)s") % {"count": _above_the_line(ranking, order)})
    words_of_order = _order_in_words(ranking, order)
    return f"{words_of_order} ({', '.join(more)})" if more else words_of_order


def _above_the_line(ranking: Ranking | AxisRanking, order: list[int]) -> str:
    named = dict(zip(order, letters(len(order))))
    above = [
        named.get(pk, f"#{pk}") for group in ranking.groups[: ranking.acceptable] for pk in group
    ]
    return ", ".join(above) or _("none")


def _order_in_words(ranking: Ranking | AxisRanking, order: list[int]) -> str:
    named = dict(zip(order, letters(len(order))))
    return " > ".join(
        " = ".join(
            named.get(identity, f"#{identity}")
            for identity in sorted(group, key=lambda one: order.index(one) if one in named else one)
        )
        for group in ranking.groups
    )


def place_of(ranking: Ranking | AxisRanking, completion: int) -> str:
    """1 for the best group, and so on; a dash where the completion was not ranked."""
    for place, group in enumerate(ranking.groups, start=1):
        if completion in group:
            return str(place)
    return "–"


def menu_of(choices: type[TextChoices]) -> list[tuple[str, str]]:
    """Values with their names in the reader's language."""
    return [(one.value, str(one.label)) for one in choices]


def filters_of(
    request: HttpRequest, *, everybody: bool, sources: list[tuple[str, str]]
) -> tuple[list[Filter], Q]:
    """The menus and what they ask for; an unknown value counts as no choice.

    everybody: for those who may see all answers. A labeler stays blind to what a question is for.
    sources: those that answers were imported from, number and name.
    """
    menus: list[tuple[str, str, str, list[tuple[str, str]]]] = [
        ("outcome", _("Outcome"), "", menu_of(Outcome))
    ]
    if everybody:
        menus += [
            ("purpose", _("Purpose"), "comparison__purpose", menu_of(Purpose)),
            ("split", _("Split"), "comparison__prompt__split", menu_of(Split)),
            ("kind", _("Annotator"), "annotator__kind", menu_of(AnnotatorKind)),
        ]
        if sources:
            menus.append(("source", _("Imported from"), "source", sources))
    asked, shown = Q(), []
    for name, label, column, choices in menus:
        chosen = request.GET.get(name, "")
        if chosen in dict(choices) and name == "outcome":
            asked &= Q(pk__in=Ranking.objects.filter(outcome=chosen).values("preference"))
        elif chosen in dict(choices):
            asked &= Q(**{column: chosen})
        shown.append(Filter(name, label, chosen, choices))
    state = request.GET.get("state", "")
    if state in STATES:
        asked &= STATES[state][1]
    names = [(key, str(words)) for key, (words, _asked) in STATES.items()]
    return [*shown, Filter("state", _("State"), state, names)], asked


@project_page()
def preferences(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest answers first; `before` is the last id of the page before."""
    everybody = membership.role != Role.LABELER
    sources = _sources(membership.project, request.GET.get("source", "")) if everybody else []
    filters, asked = filters_of(request, everybody=everybody, sources=sources)
    found = (
        visible_to(membership)
        .filter(asked)
        .select_related("annotator", "comparison__prompt", "scheme")
        .prefetch_related("rankings")
        .order_by("-pk")
    )
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 18:
        found = found.filter(pk__lt=int(before))
    page = list(found[: ROWS_PER_PAGE + 1])
    rows = [row_of(preference) for preference in page[:ROWS_PER_PAGE]]
    query = request.GET.copy()
    if len(page) > ROWS_PER_PAGE:
        query["before"] = str(rows[-1].preference.pk)
    context = {
        "rows": rows,
        "filters": filters,
        "older": query.urlencode() if len(page) > ROWS_PER_PAGE else "",
        "everybody": everybody,
    }
    return project_template(request, membership, "pages/preferences.html", context)


def _sources(project: Project, chosen: str) -> list[tuple[str, str]]:
    """What brought answers along, as a menu; the chosen one is there however many there are."""
    brought = Preference.objects.filter(project=project, source=OuterRef("pk"))
    sources = project.sources.filter(Exists(brought))
    newest = list(sources.order_by("-pk").values_list("pk", "name")[:SOURCES_SHOWN])
    if chosen.isascii() and chosen.isdigit() and len(chosen) < 18:
        shown = [pk for pk, _name in newest]
        newest += sources.filter(pk=int(chosen)).exclude(pk__in=shown).values_list("pk", "name")
    return sorted(((str(pk), name) for pk, name in newest), key=itemgetter(1))


def row_of(preference: Preference) -> Row:
    """Of an answer with its rankings, scheme, annotator and prompt at hand."""
    order = _order(preference)
    return Row(
        preference=preference,
        snippet=snippet_of(preference.comparison),
        said="; ".join(
            said(ranking, order, Options.of(preference.scheme.options).levels)
            for ranking in preference.rankings.all()
        ),
    )


def _order(preference: Preference) -> list[int]:
    """As shown; an imported answer was shown elsewhere, so the ids in its rankings."""
    if preference.presented_order:
        return list(preference.presented_order)
    seen = (i for ranking in preference.rankings.all() for group in ranking.groups for i in group)
    return sorted(set(seen))


def last_words(prompt: Prompt) -> str:
    """What was asked last, on one line; of a long text the beginning."""
    return " ".join(markdown.plain(prompt.messages[-1]["content"][:READ_CHARACTERS]).split())


def snippet_of(comparison: Comparison) -> str:
    """The beginning of what was asked last."""
    return Truncator(last_words(comparison.prompt)).chars(SNIPPET_CHARACTERS)


def _is_chatting(preference: Preference) -> bool:
    """The answer chose in a conversation that still goes on: its writer stays blind there."""
    return LiveThread.objects.filter(
        turns__comparison=preference.comparison_id, closed_at=None
    ).exists()


@project_page()
def preference(request: HttpRequest, membership: Membership, preference_id: int) -> HttpResponse:
    """One answer with its lineage both ways."""
    found = _preference(membership, preference_id)
    is_own = found.annotator.user_id == membership.user_id
    send_backs = list(
        SendBack.objects.filter(
            preference__comparison=found.comparison_id, annotator=found.annotator_id
        )
        .select_related("by")
        .order_by("-pk")[:MOST_SEND_BACKS]
    )
    context = _detail(found) | {
        "send_backs": send_backs,
        "may_send_back": (
            membership.role in REVIEW
            and may_be_sent_back(found, user_of(request))
            and not any(one.state == SendBackState.OPEN for one in send_backs)
        ),
        "is_blind": membership.role == Role.LABELER or (is_own and _is_chatting(found)),
        "may_edit": (
            is_own
            and membership.role in LABEL
            and found.current
            and found.voided_at is None
            and found.assignment_id is not None
        ),
        "may_ask": (
            found.annotator.user_id == membership.user_id
            and membership.role in LABEL
            and found.assignment_id is not None
        ),
        "may_report": is_own and membership.role in LABEL and found.source_id is None,
        "report": Report.objects.filter(
            comparison=found.comparison_id, annotator=found.annotator_id
        ).first()
        if is_own
        else None,
        "may_make_gold": (
            membership.role in REVIEW and found.comparison.purpose not in gold.CHECKED
        ),
        "gold_uses": GoldUse.choices,
        "may_void": membership.role in REVIEW and found.current and found.voided_at is None,
    }
    return project_template(request, membership, "pages/preference.html", context)


def _preference(membership: Membership, preference_id: int) -> Preference:
    return get_object_or_404(
        visible_to(membership).select_related(
            "annotator", "guideline", "scheme", "voided_by", "source", "ideal"
        ),
        pk=preference_id,
    )


def _detail(found: Preference) -> dict[str, Any]:
    lineage = lineage_of_preference(found)
    rankings = list(found.rankings.order_by("pk"))
    levels = Options.of(found.scheme.options).levels
    judgments = {one.completion_id: one for one in found.judgments.all()}
    by_id = {completion.pk: completion for completion in lineage.completions}
    order = [*found.presented_order] or list(by_id)
    page = markdown.Page()
    answers = page.render_alike([by_id[completion].text for completion in order])
    shown = [
        Shown(
            letter=letter,
            completion=by_id[completion],
            html=html,
            places=[place_of(ranking, completion) for ranking in rankings],
            judgment=judgments.get(completion),
            generations=list(by_id[completion].generations.all()),
        )
        for letter, completion, html in zip(letters(len(order)), order, answers, strict=True)
    ]
    prompt = lineage.comparison.prompt
    return {
        "preference": found,
        "comparison": lineage.comparison,
        "prompt": prompt,
        "turns": turns_of(prompt, page),
        "rankings": [(ranking, said(ranking, order, levels)) for ranking in rankings],
        "ideal": page.render(found.ideal.text) if found.ideal else None,
        "shown": shown,
        "revisions": lineage.revisions,
        "snapshots": [(one, bucket_name(bucket)) for one, bucket in lineage.snapshots],
        "trained": lineage.trained,
        "decisions": [
            (one, [(said_of.axis, said(said_of, order, levels)) for said_of in rankings_of(one)])
            for one in Decision.objects.filter(
                comparison=lineage.comparison, current=True
            ).select_related("by")
        ],
        "is_reviewed": Review.objects.filter(comparison=lineage.comparison).exists(),
    }


@project_page(*REVIEW, methods=("POST",))
def void(request: HttpRequest, membership: Membership, preference_id: int) -> HttpResponse:
    """Take an answer out of everything, with a reason; its place opens again."""
    found = _preference(membership, preference_id)
    with told(request):
        void_preference(
            preference=found, by=user_of(request), reason=request.POST.get("reason", "")
        )
        messages.success(request, _("The answer is void; its place is open again."))
    return redirect("preference", slug=membership.project.slug, preference_id=found.pk)
