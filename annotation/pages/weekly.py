"""Agreement by week, with intervals, and the votes behind each week."""

from collections.abc import Iterable

from django.http import QueryDict
from django.utils.translation import gettext as _

from annotation.intervals import Statistic
from annotation.models import Project
from annotation.pages.behind import Behind
from annotation.pages.head_to_head import Bar, bar_of
from annotation.pages.sheets import Figure, Line, Sheet, query_of, share_bar
from annotation.services.quality import newest_answers, read_rows
from annotation.services.slices import answers_of, slices

WEEK = "week"
LISTS = "lists"


def agreement_sheet(project: Project, kinds: Iterable[str], asked: QueryDict) -> Sheet:
    """The same figures as on the page of quality, week by week."""
    rows = read_rows(project, kinds)
    found = slices(rows, WEEK)
    has_axes = len({one.axis for one in found}) > 1
    columns = [
        ("alpha", _("Krippendorff's alpha")),
        ("percent", _("Same answer")),
        ("concordance", _("Pairs ordered alike (lists)")),
    ]
    known = [
        column
        for column in columns
        if any(getattr(one, column[0]).value is not None for one in found)
    ]
    columns = known or columns[:1]
    lines = []
    for one in found:
        figures: list[Figure | None] = []
        for name, _title in columns:
            of = LISTS if name == "concordance" else ""  # alpha and percent are of the same votes
            votes = query_of(part="agreement", axis=one.axis, week=one.label, of=of or None)
            statistic = getattr(one, name)
            figures.append(Figure(statistic, votes, _bar(name, statistic)))
        lines.append(Line(f"{one.label} · {one.axis}" if has_axes else one.label, figures))
    return Sheet(
        of=_("Week from"),
        columns=columns,
        lines=lines,
        lead=_(
            "A week is that of a comparison's last answer; what has one answer alone is left out."
        ),
        empty=_("No two people answered the same comparison."),
    )


def _bar(name: str, statistic: Statistic) -> Bar | None:
    """Alpha lies from -1 to 1, the shares from 0 to 1."""
    if name != "alpha":
        return share_bar(statistic, zero=0.0 if name == "percent" else 0.5)
    if (value := statistic.value) is None:
        return None
    low = value if statistic.low is None else statistic.low
    high = value if statistic.high is None else statistic.high
    return bar_of(low, value, high, span=(-1.0, 1.0), zero=0.0)


def agreement_votes(project: Project, kinds: Iterable[str], asked: QueryDict) -> Behind:
    """The first answers that one week's figures on one axis are made of, of pairs or of lists."""
    axis, week, of_lists = asked.get("axis", ""), asked.get(WEEK, ""), asked.get("of") == LISTS
    rows = read_rows(project, kinds)
    counted = answers_of(rows, WEEK, axis=axis, label=week, of_lists=of_lists)
    found, _votes, _more = newest_answers(project, kinds)
    answers = found.order_by("-pk").values_list("pk", "comparison", "annotator")
    ids = [pk for pk, unit, who in answers if (unit, who) in counted]
    heading = _("Agreement: week from %(week)s") % {"week": week[:10]}
    return Behind(heading=heading, ids=ids, num_votes=len(ids))
