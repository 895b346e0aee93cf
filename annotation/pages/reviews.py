"""Review: what people disagree on, all their answers side by side, and the word that decides."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from annotation import markdown
from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    Assignment,
    Batch,
    Decision,
    Membership,
    Preference,
    Project,
    Review,
    ReviewState,
)
from annotation.pages.answers import answer_from, letters
from annotation.pages.label import texts_of, turns_of, work_of
from annotation.pages.preferences import Shown, last_words, place_of, said
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, REVIEW
from annotation.services.caught import caught_in
from annotation.services.decisions import decide, rankings_of, scheme_of, void_decision
from annotation.services.disagreements import next_for, open_reviews, set_bar, votes_compared
from annotation.services.leases import shown_order
from annotation.services.loop import change_loop
from annotation.services.projects import annotator_for, current_guideline
from annotation.services.schemes import Options

ROWS_SHOWN = 50
MOST_COUNTED = 10_000
"""Open reviews that are counted by axis; a page waits for it."""
SNIPPET_CHARACTERS = 90


@dataclass(frozen=True)
class Vote:
    """One answer as the reviewer sees it, in the letters of the reviewer's own order."""

    preference: Preference
    said: list[tuple[str, str]]
    """Axis and what was said on it."""
    judged: list[tuple[str, list[tuple[str, int]], list[str]]]
    """Letter, ratings, flags."""
    came_later: bool
    """After the decision that is shown."""


@project_page(*REVIEW)
def reviews(request: HttpRequest, membership: Membership) -> HttpResponse:
    """What waits, what was decided, and below which bar a comparison comes here."""
    project = membership.project
    waiting = open_reviews(project).select_related("comparison__prompt", "comparison__batch")
    decisions = Decision.objects.filter(project=project)
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    shown = waiting.order_by("lowest", "pk")[:ROWS_SHOWN]
    context = {
        "num_open": waiting.count(),
        "num_incomplete": waiting.filter(comparison__open_slots__gt=0).count(),
        "num_today": decisions.filter(created_at__gte=today, voided_at=None).count(),
        "num_since": Review.objects.filter(
            project=project, state=ReviewState.DECIDED, answers_since__gt=0
        ).count(),
        "by_axis": _open_by_axis(project),
        "open": [(one, sorted(one.accord.items()), _snippet(one)) for one in shown],
        "decided": decisions.select_related("by", "comparison__review", "comparison__prompt")
        .annotate(answers_since=F("comparison__review__answers_since"))
        .order_by("-pk")[:ROWS_SHOWN],
        "caught": caught_in(project),
        "batches": project.batches.order_by("name"),
    }
    return project_template(request, membership, "pages/reviews.html", context)


def _snippet(review: Review) -> str:
    return Truncator(last_words(review.comparison.prompt)).chars(SNIPPET_CHARACTERS)


def _open_by_axis(project: Project) -> list[tuple[str, int]]:
    """On which axis people disagree, of what waits: below the project's or the batch's bar."""
    counts: Counter[str] = Counter()
    rows = open_reviews(project).values_list("accord", "comparison__batch__review_below")
    for accord, of_batch in rows[:MOST_COUNTED]:
        bar = project.review_below if of_batch is None else of_batch
        counts.update(axis for axis, value in accord.items() if value < bar)
    return sorted(counts.items())


@project_page(*REVIEW)
def next_review(request: HttpRequest, membership: Membership) -> HttpResponse:
    """To the next that this reviewer should read, or back to the list. `but`: one to pass over."""
    annotator = annotator_for(user=user_of(request), project=membership.project)
    but = request.GET.get("but", "")
    passed = int(but) if but.isascii() and but.isdigit() and len(but) < 18 else None
    found = next_for(annotator, but=passed)
    if found is None:
        messages.info(request, _("Nothing waits for your review."))
        return redirect("reviews", slug=membership.project.slug)
    return redirect("review", slug=membership.project.slug, comparison_id=found.comparison_id)


@project_page(*REVIEW, methods=("GET", "HEAD", "POST"))
def review(request: HttpRequest, membership: Membership, comparison_id: int) -> HttpResponse:
    """One comparison: all answers, and the form; or what was decided, and then who wrote what."""
    found = _review(membership, comparison_id)
    annotator = annotator_for(user=user_of(request), project=membership.project)
    if request.method == "POST":
        return _decide(request, membership, found, annotator)
    return _page(request, membership, found, annotator, QueryDict())


def _review(membership: Membership, comparison_id: int) -> Review:
    return get_object_or_404(
        Review.objects.select_related(
            "project", "comparison__prompt", "comparison__batch__scheme", "comparison__project"
        ),
        project=membership.project,
        comparison=comparison_id,
    )


def _decide(
    request: HttpRequest, membership: Membership, found: Review, annotator: Annotator
) -> HttpResponse:
    """Take the decision and go on, or say what is wrong with it."""
    here = redirect("review", slug=membership.project.slug, comparison_id=found.comparison_id)
    seen = request.POST.get("seen", "")
    undecidable = "undecidable" in request.POST
    lease = _as_lease(found, annotator)
    try:
        answer = (
            answer_from(request.POST, lease.scheme, lease.presented_order, texts_of(lease))
            if not undecidable
            else None
        )
        decide(
            comparison=found.comparison,
            by=user_of(request),
            seen=int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 9 else 0,
            rankings=answer.rankings if answer else (),
            undecidable=undecidable,
            reason=answer.note if answer else request.POST.get("reason", ""),
        )
    except BadInput as error:
        return _page(request, membership, found, annotator, request.POST, error=error.detail)
    except Conflict:
        messages.warning(request, _("Somebody else has decided this meanwhile; here is how."))
        return here
    messages.success(request, _("Decided. Here is the next."))
    return redirect("review-next", slug=membership.project.slug)


def _as_lease(found: Review, annotator: Annotator) -> Assignment:
    """What the labeling page shows a comparison by; nothing of it is stored."""
    comparison, now = found.comparison, timezone.now()
    return Assignment(
        pk=0,
        project=found.project,
        comparison=comparison,
        annotator=annotator,
        scheme=scheme_of(comparison),
        guideline=current_guideline(found.project),
        presented_order=shown_order(comparison, annotator),
        leased_at=now,
        expires_at=now,
    )


def _page(
    request: HttpRequest,
    membership: Membership,
    found: Review,
    annotator: Annotator,
    posted: QueryDict,
    error: str = "",
) -> HttpResponse:
    lease = _as_lease(found, annotator)
    history = list(
        Decision.objects.filter(comparison=found.comparison)
        .select_related("by", "voided_by")
        .order_by("-number")
    )
    decided = next((one for one in history if one.current), None)
    votes = _votes(found, lease.presented_order, decided)
    is_own = any(one.preference.annotator_id == annotator.pk for one in votes)
    context: dict[str, Any] = {
        "review": found,
        "accord": sorted(found.accord.items()),
        "votes": votes,
        "history": [(one, _words(one, lease.presented_order)) for one in history],
        "decided": decided,
        "seen": history[0].number if history else 0,
        "is_own": is_own,
        "leave": f"{reverse('review-next', args=[found.project.slug])}?but={found.comparison_id}",
        "error": error,
        "reason": posted.get("reason", ""),
    }
    if not is_own and (decided is None or error or "again" in request.GET):
        context["work"] = work_of(lease, posted, is_edit=True)
    else:
        context |= _read_only(found, lease.presented_order, decided)
    return project_template(
        request, membership, "pages/review.html", context, status=422 if error else 200
    )


def _words(decision: Decision, order: list[int]) -> list[tuple[str, str]]:
    """Axis and what was decided on it, in the letters of the page."""
    levels = Options.of(decision.scheme.options).levels
    return [(one.axis, said(one, order, levels)) for one in rankings_of(decision)]


def _votes(found: Review, order: list[int], decided: Decision | None) -> list[Vote]:
    answers = (
        votes_compared(found.comparison_id, found.project.job_defaults)
        .select_related("annotator", "scheme")
        .prefetch_related("rankings", "judgments")
        .order_by("pk")
    )
    named = dict(zip(order, letters(len(order)), strict=True))
    return [
        Vote(
            preference=one,
            said=[
                (ranking.axis, said(ranking, order, Options.of(one.scheme.options).levels))
                for ranking in one.rankings.all()
            ],
            judged=[
                (named[judgment.completion_id], sorted(judgment.ratings.items()), judgment.flags)
                for judgment in one.judgments.all()
            ],
            came_later=decided is not None and one.pk > decided.votes_seen,
        )
        for one in answers
    ]


def _read_only(found: Review, order: list[int], decided: Decision | None) -> dict[str, Any]:
    """The completions without a form; who wrote them is there to see once it is decided."""
    page, prompt = markdown.Page(), found.comparison.prompt
    by_id = {
        entry.completion_id: entry.completion
        for entry in found.comparison.entries.select_related("completion__source").prefetch_related(
            "completion__generations__model_version", "completion__generations__job"
        )
    }
    html = page.render_alike([by_id[pk].text for pk in order])
    rankings = rankings_of(decided) if decided else []
    return {
        "turns": turns_of(prompt, page),
        "is_blind": decided is None,
        "shown": [
            Shown(
                letter=letter,
                completion=by_id[pk],
                html=text,
                places=[place_of(one, pk) for one in rankings],
                judgment=None,
                generations=list(by_id[pk].generations.all()),
            )
            for letter, pk, text in zip(letters(len(order)), order, html, strict=True)
        ],
    }


@project_page(*REVIEW, methods=("POST",))
def void(request: HttpRequest, membership: Membership, decision_id: int) -> HttpResponse:
    """Take a decision back, with a reason."""
    found = get_object_or_404(Decision, project=membership.project, pk=decision_id)
    with told(request):
        void_decision(decision=found, by=user_of(request), reason=request.POST.get("reason", ""))
        messages.success(request, _("The decision is void."))
    return redirect("review", slug=membership.project.slug, comparison_id=found.comparison_id)


@project_page(*ADMINISTER, methods=("POST",))
def bar(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Below which agreement comparisons come to review: in the project, or in one batch."""
    project, chosen = membership.project, request.POST.get("batch", "")
    if chosen and not (chosen.isascii() and chosen.isdigit() and len(chosen) < 18):
        raise Http404("A batch is named by its number.")
    batch = get_object_or_404(Batch, project=project, pk=int(chosen)) if chosen else None
    with told(request):
        set_bar(
            project=project,
            batch=batch,
            below=_number(request.POST.get("below", "")),
            by=user_of(request),
        )
        messages.success(request, _("The bar is set; reviews opened and closed with it."))
    return redirect("reviews", slug=project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def catch(request: HttpRequest, membership: Membership) -> HttpResponse:
    """What is caught before display from now on."""
    project = membership.project
    changes = {name: name in request.POST for name in ("catch_leaks", "catch_alike")}
    with told(request):
        change_loop(project=project, changes=changes, by=user_of(request))
        messages.success(request, _("Changed; it holds for what is written from now on."))
    return redirect("reviews", slug=project.slug)


def _number(text: str) -> float | None:
    """Nothing for an empty field. Raises BadInput."""
    if not text.strip():
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise BadInput(_("A bar is a number from 0 to 1: %(text)s") % {"text": text[:20]}) from None
