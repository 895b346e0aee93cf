"""Gold for leads: the items, experts' answers, reports of wrong questions, who needs a decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import gold as rules
from annotation import markdown
from annotation.errors import BadInput
from annotation.intervals import Statistic, share
from annotation.models import (
    Annotator,
    AnnotatorStanding,
    CheckVerdict,
    GoldItem,
    GoldState,
    GoldUse,
    Membership,
    Outcome,
    Project,
    QualificationState,
    Report,
    ReportState,
)
from annotation.pages.answers import letters
from annotation.pages.orders import asked_for_order, form_for, order_from
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, REVIEW
from annotation.services import standing
from annotation.services.checkrules import CheckRules, change_checks
from annotation.services.gold import (
    constraints_of,
    make_gold,
    retire_gold,
    said_in,
    start_over,
    vote_on_gold,
)
from annotation.services.projects import annotator_for
from annotation.services.reports import decide_report

ITEMS_PER_PAGE = 50
MOST_PEOPLE = 200
MOST_REPORTS = 50
SNIPPET_CHARACTERS = 90


class CheckForm(forms.Form):
    """How annotators are checked; services.checkrules.CheckRules."""

    gold_every = forms.IntegerField(
        label=gettext_lazy("One hidden check in so many comparisons"),
        min_value=0,
        max_value=1000,
        help_text=gettext_lazy("On average, at uneven distances, per person. 0: no checks."),
    )
    repeat_every = forms.IntegerField(
        label=gettext_lazy("One repeat in so many comparisons"),
        min_value=0,
        max_value=1000,
        help_text=gettext_lazy(
            "One of a person's own comparisons comes again, to see how far they agree with "
            "themselves. 0: none."
        ),
    )
    repeat_gap = forms.IntegerField(
        label=gettext_lazy("Answers between the two, at least"), min_value=1, max_value=1000
    )
    bar_percent = forms.IntegerField(
        label=gettext_lazy("Bar, in percent"),
        min_value=0,
        max_value=100,
        help_text=gettext_lazy(
            "Whoever holds less of the last checks is warned, then stopped. 0: no bar."
        ),
    )
    bar_window = forms.IntegerField(
        label=gettext_lazy("Looked at: the last so many checks"),
        min_value=5,
        max_value=200,
        help_text=gettext_lazy("Fewer decide nothing."),
    )
    bar_more = forms.IntegerField(
        label=gettext_lazy("Stopped after so many more checks"),
        min_value=1,
        max_value=200,
        help_text=gettext_lazy("Counted from when the warning could be read."),
    )
    qualification_items = forms.IntegerField(
        label=gettext_lazy("Questions of the qualification"),
        min_value=0,
        max_value=100,
        help_text=gettext_lazy(
            "Newcomers answer them before real work; who works here by now need not. 0: none."
        ),
    )
    qualification_percent = forms.IntegerField(
        label=gettext_lazy("To be right, in percent"), min_value=1, max_value=100
    )
    qualification_skill = forms.CharField(
        label=gettext_lazy("Skill given to whoever passes"), required=False, max_length=40
    )


@dataclass(frozen=True)
class Line:
    """One item of the list."""

    item: GoldItem
    snippet: str
    experts: int
    pass_rate: Statistic
    reports: int


@dataclass(frozen=True)
class Person:
    """One annotator who waits for a decision or is on the way."""

    annotator: Annotator
    name: str
    accuracy: Statistic


def in_words(constraint: rules.Constraint, order: Sequence[int]) -> str:
    """A constraint in the letters of the page: A > B."""
    if constraint.says == rules.Says.EQUAL:
        return _("all equal")
    if constraint.says == rules.Says.BOTH_BAD:
        return str(Outcome.BOTH_BAD.label)
    named = dict(zip(order, letters(len(order)), strict=True))
    return f"{named[constraint.better or 0]} > {named[constraint.worse or 0]}"


def by_axis(constraints: Sequence[rules.Constraint], order: Sequence[int]) -> dict[str, list[str]]:
    """Axis -> its constraints in words, without what follows from the others."""
    found: dict[str, list[str]] = {}
    for one in rules.in_short(constraints):
        found.setdefault(one.axis, []).append(in_words(one, order))
    return found


def check_form(project: Project) -> CheckForm:
    """The rules in force."""
    in_force = CheckRules.of(project.checks)
    return CheckForm(initial={name: getattr(in_force, name) for name in CheckForm.base_fields})


@project_page(*REVIEW)
def gold(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The list, and above it what waits for the lead."""
    project = membership.project
    chosen = {
        "use": _one_of(request.GET.get("use", ""), GoldUse.values),
        "state": _one_of(request.GET.get("state", ""), GoldState.values),
    }
    asked = Q(**{name: value for name, value in chosen.items() if value})
    items = _with_counts(project.gold_items.filter(asked)).order_by("-pk")
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 18:
        items = items.filter(pk__lt=int(before))
    page = list(items[: ITEMS_PER_PAGE + 1])
    query = request.GET.copy()
    if len(page) > ITEMS_PER_PAGE:
        query["before"] = str(page[ITEMS_PER_PAGE - 1].pk)
    context: dict[str, Any] = {
        "lines": [_line(item) for item in page[:ITEMS_PER_PAGE]],
        "older": query.urlencode() if len(page) > ITEMS_PER_PAGE else "",
        "filters": [
            ("use", _("Used as"), chosen["use"], GoldUse.choices),
            ("state", _("State"), chosen["state"], GoldState.choices),
        ],
        "reports": _open_reports(project),
        "people": _people(project),
        "rules": CheckRules.of(project.checks),
    }
    if membership.role in ADMINISTER:
        context["check_form"] = check_form(project)
    return project_template(request, membership, "pages/gold.html", context)


def _with_counts(items: QuerySet[GoldItem]) -> QuerySet[GoldItem]:
    return items.select_related("comparison__prompt", "comparison__batch__scheme").annotate(
        num_experts=Count("votes", distinct=True),
        num_checks=Count("checks", filter=Q(checks__counts=True), distinct=True),
        num_held=Count(
            "checks",
            filter=Q(checks__counts=True, checks__verdict=CheckVerdict.HELD),
            distinct=True,
        ),
        num_reports=Count(
            "comparison__reports",
            filter=Q(comparison__reports__state=ReportState.OPEN),
            distinct=True,
        ),
    )


def _line(item: Any) -> Line:
    return Line(
        item=item,
        snippet=snippet_of(item.comparison.prompt.messages),
        experts=item.num_experts,
        pass_rate=share(item.num_held, item.num_checks),
        reports=item.num_reports,
    )


def snippet_of(messages: Sequence[dict[str, Any]]) -> str:
    """The beginning of what is asked last."""
    words = " ".join(markdown.plain(messages[-1]["content"]).split())
    return Truncator(words).chars(SNIPPET_CHARACTERS)


def _open_reports(project: Project) -> list[tuple[Report, str]]:
    found = (
        project.reports.filter(state=ReportState.OPEN)
        .select_related("comparison__prompt", "comparison__gold", "annotator")
        .order_by("pk")[:MOST_REPORTS]
    )
    return [(one, snippet_of(one.comparison.prompt.messages)) for one in found]


def _people(project: Project) -> list[Person]:
    """Warned or stopped by the bar, and where there is a qualification, whoever failed it."""
    asked = ~Q(standing=AnnotatorStanding.GOOD)
    if CheckRules.of(project.checks).qualification_items:
        asked |= Q(qualification=QualificationState.FAILED)
        asked |= Q(gold_checks__attempt__gte=1, qualification=QualificationState.OPEN)
    found = list(
        project.annotators.filter(asked)
        .select_related("user")
        .order_by("pseudonym")
        .distinct()[:MOST_PEOPLE]
    )
    verdicts = standing.accuracies([one.pk for one in found])
    return [Person(one, one.pseudonym, rules.accuracy(verdicts.get(one.pk, []))) for one in found]


def _one_of(value: str, values: Sequence[str]) -> str:
    return value if value in values else ""


def _item(membership: Membership, item_id: int) -> GoldItem:
    return get_object_or_404(
        _with_counts(membership.project.gold_items.all()).select_related(
            "comparison__prompt", "comparison__batch__scheme", "origin"
        ),
        pk=item_id,
    )


@project_page(*REVIEW, methods=("GET", "HEAD", "POST"))
def item(request: HttpRequest, membership: Membership, item_id: int) -> HttpResponse:
    """One item: its answers, and the form of an expert. Others' answers are shown after one's own,
    so that each expert judges alone."""
    found = _item(membership, item_id)
    me = user_of(request)
    asked = asked_for_order(found.comparison, annotator_for(user=me, project=membership.project))
    error = ""
    if request.method == "POST":
        try:
            answer = order_from(asked, request.POST)
            voted = vote_on_gold(
                item=found, by=me, rankings=answer.rankings, explanation=answer.note
            )
        except BadInput as wrong:
            error = wrong.detail
        else:
            if voted.state == GoldState.LIVE:
                messages.success(request, _("The experts agree: this question is live."))
            else:
                messages.success(request, _("Saved. It is live once two experts agree."))
            return redirect("gold-item", slug=membership.project.slug, item_id=found.pk)
    votes = list(found.votes.select_related("expert").order_by("pk"))
    has_voted = any(vote.expert_id == me.pk for vote in votes)
    order = asked.presented_order
    context = {
        "item": found,
        "line": _line(found),
        "work": form_for(asked, request.POST if error else QueryDict()),
        "error": error,
        "has_voted": has_voted,
        "num_votes": len(votes),
        "votes": [(vote, _vote_in_words(vote.rankings, order), vote.explanation) for vote in votes]
        if has_voted
        else [],
        "constraints": by_axis(constraints_of(found), order).items() if has_voted else [],
        "reports": [
            (one, "") for one in found.comparison.reports.select_related("annotator").order_by("pk")
        ],
        "is_retired": found.state == GoldState.RETIRED,
    }
    return project_template(
        request, membership, "pages/gold_item.html", context, status=422 if error else 200
    )


def _vote_in_words(rankings: list[dict[str, Any]], order: Sequence[int]) -> str:
    named = dict(zip(order, letters(len(order)), strict=True))
    found = []
    for axis, said in said_in(rankings).items():
        words = " > ".join(" = ".join(named[one] for one in group) for group in said.groups)
        words = words or str(Outcome(said.outcome).label)
        found.append(f"{axis}: {words}" if len(rankings) > 1 else words)
    return "; ".join(found)


@project_page(*REVIEW, methods=("POST",))
def make(request: HttpRequest, membership: Membership, comparison_id: int) -> HttpResponse:
    """Make a comparison gold, then ask whoever did so for the answer."""
    comparison = get_object_or_404(
        membership.project.comparisons.select_related("batch__scheme", "prompt__source"),
        pk=comparison_id,
    )
    with told(request):
        made = make_gold(
            comparison=comparison, use=request.POST.get("use", ""), by=user_of(request)
        )
        return redirect("gold-item", slug=membership.project.slug, item_id=made.pk)
    return redirect("gold", slug=membership.project.slug)


@project_page(*REVIEW, methods=("POST",))
def retire(request: HttpRequest, membership: Membership, item_id: int) -> HttpResponse:
    """Take an item out, or have experts answer it anew."""
    found = get_object_or_404(membership.project.gold_items, pk=item_id)
    reason, by = request.POST.get("reason", ""), user_of(request)
    with told(request):
        if request.POST.get("anew"):
            start_over(item=found, by=by, reason=reason)
            messages.success(request, _("A draft again: two experts are to answer it."))
        else:
            is_wrong = request.POST.get("is_wrong") == "on"
            retire_gold(item=found, by=by, reason=reason, is_wrong=is_wrong)
            if is_wrong:
                standing.recover_without(found)
            messages.success(request, _("The question is not asked any more."))
    return redirect("gold-item", slug=membership.project.slug, item_id=found.pk)


@project_page(*REVIEW, methods=("POST",))
def decide(request: HttpRequest, membership: Membership, report_id: int) -> HttpResponse:
    """Answer a report of a wrong question."""
    report = get_object_or_404(membership.project.reports, pk=report_id)
    with told(request):
        decide_report(
            report=report,
            ruling=request.POST.get("ruling", ""),
            reply=request.POST.get("reply", ""),
            by=user_of(request),
        )
        messages.success(request, _("The report is answered."))
    return redirect("gold", slug=membership.project.slug)


@project_page(*REVIEW, methods=("POST",))
def person(request: HttpRequest, membership: Membership, annotator_id: int) -> HttpResponse:
    """Lift a stop, grant another try, or pass somebody by hand."""
    annotator = get_object_or_404(membership.project.annotators, pk=annotator_id)
    act, by = request.POST.get("act", ""), user_of(request)
    with told(request):
        if act == "lift":
            reason = request.POST.get("reason", "")
            standing.lift_stop(annotator=annotator, by=by, reason=reason)
            messages.success(request, _("They may go on."))
        elif act == "try":
            standing.grant_try(annotator=annotator, by=by)
            messages.success(request, _("They may try again."))
        elif act == "pass":
            standing.pass_by_hand(annotator=annotator, by=by)
            messages.success(request, _("They count as qualified."))
        else:
            raise BadInput(f"An act is lift, try or pass: {act!r:.40}.")
    return redirect("gold", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def checks(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Change how annotators are checked."""
    form = CheckForm(request.POST)
    if form.is_valid():
        with told(request):
            change_checks(
                project=membership.project, changes=form.cleaned_data, by=user_of(request)
            )
            messages.success(request, _("The checks are saved."))
    else:
        for name, sentences in form.errors.items():
            label = form.fields[name].label if name in form.fields else name
            messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")
    return redirect("gold", slug=membership.project.slug)
