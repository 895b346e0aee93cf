"""Quality: how far people agree, how each of them works, and whom to look at."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from annotation.models import AnnotatorKind, Membership
from annotation.pages.shell import project_page, project_template
from annotation.permissions import WATCH
from annotation.quality import Reason
from annotation.services.quality import FLOOR_SECONDS, MOST_ANSWERS, PEOPLE, report

NAMES = {
    "percent": _("Same answer, share of pairs of people"),
    "cohen": _("Cohen's kappa"),
    "fleiss": _("Fleiss' kappa"),
    "alpha": _("Krippendorff's alpha"),
    "tau": _("Kendall's tau (lists)"),
    "concordance": _("Pairs ordered alike (lists)"),
}
REASONS = {
    Reason.RANDOM: _("agrees with others no more than chance"),
    Reason.ONE_SIDE: _("prefers one side"),
    Reason.TOO_FAST: _("too fast to have read"),
}
WHOSE = {
    "people": (_("People"), PEOPLE),
    "simulated": (_("Simulated labelers"), (AnnotatorKind.SIMULATED,)),
    "models": (_("Models"), (AnnotatorKind.MODEL,)),
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
    found = report(membership.project, WHOSE[chosen][1])
    context |= {
        "rows": found.rows,
        "axes": [
            (axis, [(NAMES[one.name], one.statistic) for one in figures])
            for axis, figures in found.agreement.items()
        ],
        "annotators": [
            (one, [REASONS[Reason(reason)] for reason in one.reasons]) for one in found.annotators
        ],
        "longer": found.longer_wins,
        "floor": FLOOR_SECONDS,
        "most": MOST_ANSWERS,
    }
    return project_template(request, membership, "pages/quality_figures.html", context)
