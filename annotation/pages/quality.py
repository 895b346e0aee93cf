"""Quality: how far people agree, how each of them works, and whom to look at."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from annotation.models import AnnotatorKind, Membership
from annotation.pages.charts import Chart, line_chart
from annotation.pages.shell import project_page, project_template
from annotation.permissions import WATCH
from annotation.quality import Reason
from annotation.services.quality import (
    FLOOR_SECONDS,
    MOST_ANSWERS,
    PEOPLE,
    annotators_of,
    read_rows,
    report,
)
from annotation.services.slices import BY, AgainstLeads, Slice, against_leads, slices

NAMES = {
    "percent": _("Same answer, share of pairs of people"),
    "cohen": _("Cohen's kappa"),
    "fleiss": _("Fleiss' kappa"),
    "alpha": _("Krippendorff's alpha"),
    "tau": _("Kendall's tau (lists)"),
    "concordance": _("Pairs ordered alike (lists)"),
}
OF_LISTS = ("tau", "concordance")
REASONS = {
    Reason.RANDOM: _("agrees with others no more than chance"),
    Reason.ONE_SIDE: _("prefers one side"),
    Reason.TOO_FAST: _("too fast to have read"),
}
LEADS = "leads"
ANNOTATORS = "annotators"
WHOSE = {
    "people": (_("People"), PEOPLE),
    "simulated": (_("Simulated labelers"), (AnnotatorKind.SIMULATED,)),
    "models": (_("Models"), (AnnotatorKind.MODEL,)),
}


BY_NAMES = {
    "scheme": _("By scheme version"),
    "language": _("By language"),
    "skill": _("By skill"),
    "week": _("By week"),
    LEADS: _("Labelers against leads"),
}


@project_page(*WATCH)
def quality(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The page at once; its figures come after it."""
    chosen = request.GET.get("whose", "people")
    chosen = chosen if chosen in WHOSE else "people"
    context: dict[str, Any] = {
        "whose": [(name, label, name == chosen) for name, (label, _kinds) in WHOSE.items()],
        "chosen": chosen,
    }
    if not request.headers.get("HX-Request"):
        return project_template(request, membership, "pages/quality.html", context)
    by = request.GET.get("by", "")
    if by in BY:
        return _slices(request, membership, chosen, by)
    if request.GET.get("of") == ANNOTATORS:
        return _annotators(request, membership, chosen)
    if by == LEADS:
        found_leads = against_leads(membership.project, WHOSE[chosen][1])
        return _leads(request, membership, found_leads)
    found = report(membership.project, WHOSE[chosen][1])
    context |= {
        "parts": [*BY_NAMES.items()],
        "rows": found.rows,
        "axes": [
            (axis, [(NAMES[one.name], one.statistic, one.name in OF_LISTS) for one in figures])
            for axis, figures in found.agreement.items()
        ],
        "longer": found.longer_wins,
        "most": MOST_ANSWERS,
    }
    return project_template(request, membership, "pages/quality_figures.html", context)


def _annotators(request: HttpRequest, membership: Membership, whose: str) -> HttpResponse:
    """Those who answered, line by line; asked for after the rest, which waits for less."""
    context = {
        "annotators": [
            (one, [REASONS[Reason(reason)] for reason in one.reasons])
            for one in annotators_of(membership.project, WHOSE[whose][1])
        ],
        "floor": FLOOR_SECONDS,
        "chosen": whose,
    }
    return project_template(request, membership, "pages/quality_annotators.html", context)


def _slices(request: HttpRequest, membership: Membership, whose: str, by: str) -> HttpResponse:
    """Agreement of every part, and over weeks a chart for each axis."""
    found = slices(read_rows(membership.project, WHOSE[whose][1]), by)
    context = {
        "by": BY_NAMES[by],
        "part": by,
        "chosen": whose,
        "slices": found,
        "charts": _charts(found) if by == "week" else [],
        "axes": len({one.axis for one in found}),
    }
    return project_template(request, membership, "pages/quality_slices.html", context)


def _charts(found: list[Slice]) -> list[Chart]:
    """Of each axis Krippendorff's alpha of pairs, week by week; weeks without a figure are gaps."""
    charts = []
    for axis in dict.fromkeys(one.axis for one in found):
        points = [one.alpha.value for one in found if one.axis == axis]
        chart = line_chart(f"{axis}: {NAMES['alpha']}", list(enumerate(points, start=1)))
        if chart is not None and len(points) > 1:
            charts.append(chart)
    return charts


def _leads(request: HttpRequest, membership: Membership, found: list[AgainstLeads]) -> HttpResponse:
    """Labeler by week."""
    weeks = sorted({week for one in found for week in one.weeks})
    context = {
        "weeks": weeks,
        "labelers": [(one, [one.weeks.get(week) for week in weeks]) for one in found],
    }
    return project_template(request, membership, "pages/quality_leads.html", context)
