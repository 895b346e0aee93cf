"""What each annotator, batch and guideline version did for dev log loss: the newest study."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.faults import Known, in_words
from annotation.intervals import Statistic
from annotation.models import Annotator, Membership, Project, Study, StudyState
from annotation.pages.behind import Behind, list_of
from annotation.pages.head_to_head import Bar, bar_of
from annotation.pages.sheets import Figure, Line, Sheet, csv_of, query_of
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import RESEARCH, WATCH
from annotation.services.studies import AT_WORK, LOST, request_study, votes_behind
from annotation.services.versions import in_force

MOST_NAME = 300
MOST_DIGITS = 17
BY = {
    "annotator": gettext_lazy("Annotator"),
    "batch": gettext_lazy("Batch"),
    "guideline": gettext_lazy("Guideline version"),
}
FAULTS: Known = [
    (LOST.replace(".", r"\."), gettext_lazy("Its worker fell silent again and again.")),
    (
        r"The project has no comparisons to learn from \(train, dev\)\.",
        gettext_lazy("The project has no comparisons to learn from (train, dev)."),
    ),
    (
        r".* has no (?P<split>train|dev) comparison with a strict pair and with features",
        gettext_lazy("No %(split)s comparison has a strict answer and fits into the model."),
    ),
    (
        r".* is an ensemble: its members have features",
        gettext_lazy("The reward model is an ensemble, which has no single head to fit again."),
    ),
]


@project_page(*WATCH)
def contributions(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest finished study, and how the one after it fares."""
    project = membership.project
    newest = Study.objects.filter(project=project).select_related("reward").order_by("-pk").first()
    done = _done(project)
    sheets = [] if done is None else sheets_of(done)
    context = {
        "study": done,
        "newest": newest,
        "at_work": newest is not None and newest.state in AT_WORK,
        "error": in_words(newest.error, FAULTS)
        if newest is not None and newest.state == StudyState.FAILED
        else "",
        "sheets": sheets,
        "has_reward": in_force(project, "reward") is not None,
        "may_ask": membership.role in RESEARCH,
    }
    return project_template(request, membership, "pages/contributions.html", context)


def _done(project: Project) -> Study | None:
    done = Study.objects.filter(project=project, state=StudyState.DONE)
    return done.select_related("reward", "project", "snapshot").order_by("-pk").first()


def sheets_of(study: Study) -> list[tuple[str, str, Sheet]]:
    """(by, what a part is, its lines) of each way to part votes, the most harmful first."""
    found = study.result["contributions"]
    names = _names(study.project, found)
    sheets = []
    for by, title in BY.items():
        parts = [one for one in found if one["by"] == by]
        ends = [one[end] for one in parts for end in ("low", "nats", "high")]
        known = [0.0, *(end for end in ends if end is not None)]
        span = (min(known), max(known))
        lines = [
            Line(
                label=names.get((by, one["name"]), one["name"]),
                figures=[
                    Figure(
                        statistic := Statistic(one["nats"], one["votes"], one["low"], one["high"]),
                        query_of(by=by, name=one["name"]),
                        _bar(statistic, span),
                    )
                ],
            )
            for one in parts
        ]
        if lines:
            columns = [("nats", _("Dev log loss without it, more by (nats)"))]
            sheets.append((by, str(title), Sheet(of=str(title), columns=columns, lines=lines)))
    return sheets


def _names(project: Project, found: list[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Annotators by their names on these pages, guideline versions with a v."""
    ids = [int(one["name"]) for one in found if one["by"] == "annotator"]
    ids = [pk for pk in ids if pk < 10**MOST_DIGITS]
    people = Annotator.objects.filter(project=project, pk__in=ids).values_list("pk", "pseudonym")
    names = {("annotator", str(pk)): pseudonym for pk, pseudonym in people}
    return names | {
        ("guideline", one["name"]): f"v{one['name']}" for one in found if one["by"] == "guideline"
    }


def _bar(statistic: Statistic, span: tuple[float, float]) -> Bar:
    value = statistic.value or 0.0
    low = value if statistic.low is None else statistic.low
    high = value if statistic.high is None else statistic.high
    return bar_of(low, value, high, span=span, zero=0.0)


@project_page(*RESEARCH, methods=("POST",))
def ask(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Have it measured; pressed twice it is measured once."""
    with told(request):
        study = request_study(project=membership.project, by=user_of(request))
        if study.state in AT_WORK:
            messages.success(request, _("A worker measures it; the page shows it when it is done."))
    return redirect("analysis-contributions", slug=membership.project.slug)


@project_page(*WATCH)
def numbers(request: HttpRequest, membership: Membership) -> HttpResponse:
    """One table of the newest study as CSV, the first where none is named."""
    study = _done(membership.project)
    sheets = {by: sheet for by, _title, sheet in sheets_of(study)} if study else {}
    by = request.GET.get("by", "") or next(iter(sheets), "")
    sheet = sheets.get(by, Sheet(of="", columns=[]))
    return csv_of(sheet, f"{membership.project.slug}-contributions-{by if by in sheets else ''}")


@project_page(*WATCH)
def votes(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The votes of one part; `before` is the last id of the page before."""
    behind = behind_of(_done(membership.project), request.GET)
    context = {**list_of(behind, request.GET), "back": "analysis-contributions"}
    return project_template(request, membership, "pages/analysis_votes.html", context)


def behind_of(study: Study | None, asked: QueryDict) -> Behind:
    """What a part's figure was measured without; nothing without a study or a name."""
    by, name = asked.get("by", "annotator"), asked.get("name", "")
    if by not in BY or len(name) > MOST_NAME:
        raise Http404
    if study is None or not (by == "batch" or (name.isascii() and name.isdigit())):
        return Behind(heading=str(BY[by]), ids=[], num_votes=0)
    found = votes_behind(study, by=by, name=name[:MOST_DIGITS] if by != "batch" else name)
    label = _names(study.project, [{"by": by, "name": name}]).get((by, name), name)
    return Behind(heading=f"{BY[by]}: {label}", ids=found, num_votes=found.count())
